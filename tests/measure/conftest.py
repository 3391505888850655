import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def process() -> Iterator["subprocess.Popen[str]"]:
    """One that computes without end."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"], text=True)
    yield child
    child.kill()
    child.wait()
