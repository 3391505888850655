"""The answers of our scripts on a board: one line of JSON each, found among whatever else was printed there."""

import json
from pathlib import Path
from typing import Any, TypeVar

from edgekit.deploy.ssh import Done, Ssh, assignments, quote
from edgekit.errors import DeployError

#: The beginning of the line with an answer.
MARK = b"edgekit:"
T = TypeVar("T")
#: When the board's Python is unfit: the beginning of the script's last line -> what that means.
UNFIT = {
    "SyntaxError": "is older than Python 3.6; name a newer one with --python PATH",
    "UnicodeEncodeError": "runs without a UTF-8 locale; choose a --target in ASCII letters, or --env LC_ALL=C.UTF-8",
}


class Answer:
    """A JSON object from the board. A field that is missing or of another type is a DeployError that quotes it."""

    def __init__(self, value: Any, source: str) -> None:
        self._source = source
        if not isinstance(value, dict):
            raise DeployError(f"{source} answered {value!r:.200}: expected a JSON object")
        self._value: dict[str, Any] = value

    def get(self, key: str, kind: type[T]) -> T:
        """The field `key`, of type `kind`."""
        found = self.maybe(key, kind)
        if found is None:
            raise DeployError(f"{self._source} answered {str(self._value)[:200]}: {key} is missing")
        return found

    def maybe(self, key: str, kind: type[T]) -> T | None:
        """The field `key`, of type `kind`, or None."""
        found = self._value.get(key)
        if kind is float and type(found) is int:
            found = float(found)
        if found is not None and (not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool)):
            raise DeployError(f"{self._source} answered {key} {found!r:.200}: expected {kind.__name__}")
        return found

    def require(self) -> "Answer":
        """This answer itself; DeployError when it says that the script met an error."""
        if self._value.get("error") is not None:
            where = f" ({self._value['path']})" if self._value.get("path") else ""
            raise DeployError(f"{self._source}: {self._value['error']}{where}")
        return self


def parse(out: bytes, source: str) -> Answer:
    """The answer in the output `out`; DeployError when there is none."""
    lines = [line for line in out.splitlines() if line.startswith(MARK)]
    if not lines:
        raise DeployError(f"{source} answered {out[-300:].decode('utf-8', 'replace')!r}: no answer of edgekit's")
    try:
        return Answer(json.loads(lines[-1][len(MARK) :].decode("utf-8", "replace")), source)
    except (ValueError, RecursionError) as error:
        raise DeployError(f"{source} answered {lines[-1][:300]!r}, which does not parse: {error}") from None


def command(python: str, script: str, argument: dict[str, Any], variables: dict[str, str] | None = None) -> str:
    """The shell command that runs on_board/`script`.py with `argument` there, with `variables` set."""
    text = (Path(__file__).parent / "on_board" / f"{script}.py").read_text(encoding="utf-8")
    return f"{assignments(variables or {})}{quote(python)} -c {quote(text)} {quote(json.dumps(argument))}"


def ask(
    ssh: Ssh, python: str, script: str, argument: dict[str, Any], variables: dict[str, str] | None = None
) -> Answer:
    """The answer of on_board/`script`.py; DeployError when it cannot be run or does not answer."""
    return answered(ssh, python, ssh.run(command(python, script, argument, variables)))


def answered(ssh: Ssh, python: str, done: Done) -> Answer:
    """The answer of a command that has ended, `done`; DeployError as for `ask`."""
    if done.code in (126, 127):
        raise DeployError(
            f"{ssh.host}: {python} cannot be run there; name the board's Python with --python PATH\n"
            f"the board said: {done.words}"
        )
    for error, meaning in UNFIT.items():
        if done.code and done.words.splitlines()[-1].startswith(error):
            raise DeployError(f"{ssh.host}: {python} {meaning}\nit said: {done.words.splitlines()[-1]}")
    if done.code:
        raise DeployError(f"{ssh.host}: a script of edgekit's ended with exit code {done.code} there: {done.words}")
    return parse(done.out, ssh.host)
