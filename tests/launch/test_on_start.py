"""Who starts processes is told of each as it starts."""

import subprocess
import sys

from edgekit.launch.processes import Children


def test_name_and_process_are_told() -> None:
    told: dict[str, subprocess.Popen[str]] = {}
    with Children([sys.executable, "-c"], told.__setitem__) as children:
        children.start("it", ['print(\'{"event": "hello"}\')'])
        assert told["it"].pid == children.pid("it")
        assert [event["event"] for _, event in children.events()] == ["hello"]
    assert told["it"].returncode == 0
