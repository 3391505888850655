"""What a command prints about the machine, or why it printed nothing."""

import subprocess
from typing import Dict, List, Optional, Tuple


def told_by(command: List[str], environment: Optional[Dict[str, str]] = None, wait_s: float = 60) -> Tuple[str, str]:
    """(standard output of `command`, ""), or ("", the reason in words) when it failed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=wait_s,
        )
    except FileNotFoundError:
        return "", "{} is not on PATH".format(command[0])
    except OSError as error:
        return "", "{} cannot be started: {}".format(command[0], error.strerror)
    except subprocess.TimeoutExpired:
        return "", "{} did not end within {:.0f} s".format(command[0], wait_s)
    output, errors = (stream.decode("utf-8", "replace").strip() for stream in (done.stdout, done.stderr))
    if done.returncode < 0:
        return "", "it was ended by signal {}".format(-done.returncode)
    if done.returncode:
        said = (errors or output).splitlines()
        return "", said[-1].strip() if said else "it ended with {}, without a word".format(done.returncode)
    return output, ""
