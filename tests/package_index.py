"""pip, for tests that need packages from the index: they are skipped where it cannot be reached."""

import subprocess

import pytest

#: What pip says then; not one of a fixed set of exit codes.
UNREACHABLE = ("connection broken", "Could not fetch URL")


def pip(python: str, *words: str, may_lack: bool = False, environment: dict[str, str] | None = None) -> None:
    """Runs pip of `python` with `words`, for wheels alone.

    `may_lack`: whether the index may have none for this Python or platform, which skips too.
    """
    command = [python, "-m", "pip", *words, "--retries", "1", "--only-binary", ":all:"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    said = done.stdout + done.stderr
    if done.returncode and any(word in said for word in UNREACHABLE):
        pytest.skip(f"the package index cannot be reached: pip {' '.join(words)}")
    if done.returncode and may_lack and "No matching distribution" in said:
        pytest.skip(f"no wheel for this Python or platform: pip {' '.join(words)}: {said.splitlines()[-1]}")
    assert done.returncode == 0, said
