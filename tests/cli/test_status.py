"""`edgekit status`: what it shows, and what it says where no status is."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgekit.cli import status as command
from edgekit.errors import PayloadError, TransportError, UsageError
from edgekit.server.observe.web import Page, Web

DEVICE = {
    "name": "nano", "state": "waits_step", "step": 12, "behind": 0, "images": 384, "bytes_up": 58400,
    "bytes_down": 2143000, "loss": 1.5, "heard": 1000.0,
}  # fmt: skip
LATE = {**DEVICE, "name": "pi", "state": "training", "behind": 3, "loss": None, "heard": 880.0, "bytes_up": 12}
BAD = {**DEVICE, "name": "tx2", "state": "quarantined", "reason": "noise"}
STATUS: dict[str, Any] = {
    "edgekit": "0.1.0", "run": "abcd", "now": 1003.0, "began": 3.0, "progress": 0.25, "steps": 12, "rounds": 2,
    "images": 768, "loss": 1.25, "rate": 0.05, "last_step": 999.0, "errors": {"10": 2}, "joining": [],
    "waited_for": ["pi"], "tested": {"epoch": 2, "accuracy": 91.25}, "devices_expected": 3,
    "devices": [DEVICE, LATE, BAD],
}  # fmt: skip


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    made: list[Web] = []

    def serve(content: bytes, code: int = 200, path: str = "/status") -> str:
        made.append(Web("127.0.0.1:0", {path: lambda: Page(code, "application/json", content)}))
        return f"127.0.0.1:{made[-1].port}"

    yield serve
    for each in made:
        each.close()


def run(*words: str) -> None:
    command.status.main(list(words), standalone_mode=False)


def test_the_run_and_its_devices_are_shown(served: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    run(served(json.dumps(STATUS).encode()))
    out = capsys.readouterr().out
    assert "run abcd of edgekit 0.1.0, begun 17 min ago" in out
    assert "25.0 % done: steps 12, rounds 2, images 768; the last step 4 s ago" in out
    assert "loss 1.250, learning rate 0.05, 91.25 % right in the test after epoch 2" in out
    assert "errors that devices were told: 2 of code 10" in out and "waited for: pi" in out
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    assert "waits for the step" in rows["nano"] and "58.4 kB" in rows["nano"] and "2.1 MB" in rows["nano"]
    assert "123 s" not in rows["pi"] and "2 min" in rows["pi"] and "12 B" in rows["pi"]
    assert "noise" in rows["tx2"]


def test_before_a_run_begins(served: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    empty = dict.fromkeys(("loss", "rate", "last_step", "tested"))
    run(served(json.dumps({**STATUS, **empty, "devices": [], "waited_for": [], "joining": ["nano"]}).encode()))
    out = capsys.readouterr().out
    assert "waiting to begin: nano; 2 more to come" in out and "loss" not in out and "│" not in out


def test_json_is_what_the_server_gave(served: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    run(served(json.dumps({**STATUS, "more": [1]}).encode()), "--json")
    assert json.loads(capsys.readouterr().out) == {**STATUS, "more": [1]}


def test_watching_asks_again_until_the_server_ends(
    served: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address, slept = served(json.dumps(STATUS).encode()), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises((KeyboardInterrupt, click.Abort)):
        run(address, "--watch", "2")
    assert slept == [2, 2, 2] and capsys.readouterr().out.count("run abcd") == 3


def test_no_proxy_is_used(
    served: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    run(served(json.dumps(STATUS).encode()))
    assert "run abcd" in capsys.readouterr().out


def test_nobody_is_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(TransportError, match=rf"no server answers at {address} .*serve --metrics"):
            run(address)
    with pytest.raises(TransportError, match=r"host nowhere\.invalid is unknown"):
        run("nowhere.invalid:1")
    with pytest.raises(UsageError, match="HOST:PORT"):
        run("nowhere")


def test_the_wrong_path(served: Callable[..., str]) -> None:
    with pytest.raises(TransportError, match="code 404 to /status: it is no `edgekit serve --metrics`"):
        run(served(b"", path="/elsewhere"))
    with pytest.raises(TransportError, match="code 503"):
        run(served(b"", code=503))


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1]", b'{"a": 1}', b'{"edgekit": 1}', b"[" * 100000, b"\xff"])
def test_no_edgekit_server(served: Callable[..., str], content: bytes) -> None:
    with pytest.raises(TransportError, match="no status of an edgekit server"):
        run(served(content))


def test_what_is_too_much_is_not_read(served: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MOST", 100)
    with pytest.raises(TransportError, match="more than 100 B"):
        run(served(json.dumps(STATUS).encode()))


@pytest.mark.parametrize("words", [b"\0\0\x06\x04\0\0\0\0\0", b"SSH-2.0-OpenSSH_9.6\r\n", b""])
def test_what_does_not_speak_http(words: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(words)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(TransportError, match=r"does not speak HTTP.*--metrics.*not that of --listen"):
            run(f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join(300)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": "x"}, "'steps' is 'x', expected int"),
        ({"steps": True}, "'steps' is True"),
        ({"progress": None}, "'progress' is a NoneType, expected a number"),
        ({"now": 1e300}, "'now' is 1e"),
        ({"devices": {}}, "'devices' is a dict, expected list"),
        ({"devices": [1]}, "a device is a int"),
        ({"devices": [{**DEVICE, "name": None}]}, "device: 'name' is a NoneType"),
        ({"devices": [{**DEVICE, "loss": []}]}, "device: 'loss' is a list"),
        ({"waited_for": [1]}, "'waited_for' has what is no name"),
        ({"tested": {"epoch": 1}}, "test: 'accuracy'"),
    ],
)
def test_a_status_of_another_version(change: dict[str, Any], told: str) -> None:
    with pytest.raises(PayloadError) as caught:
        command.parse(json.dumps({**STATUS, **change}).encode(), "a:1")
    assert told in str(caught.value)


TEXT = st.text("ab\x1b\x07]é\n", max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*STATUS, "other"]), JSON), st.dictionaries(st.sampled_from([*BAD]), JSON))
def test_any_status_is_shown_or_a_typed_error(change: dict[str, Any], of_device: dict[str, Any]) -> None:
    changed = {**STATUS, "devices": [{**BAD, **of_device}], **change}
    try:
        found = command.parse(json.dumps(changed).encode(), "a:1")
    except (PayloadError, TransportError):
        return
    console = Console(width=200)
    with console.capture() as shown:
        console.print(command.table(found))
    assert "\x1b]" not in shown.get() and "\x07" not in shown.get()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_status_or_a_typed_error(content: bytes) -> None:
    with pytest.raises((PayloadError, TransportError)):
        command.parse(content, "a:1")


def test_what_steers_a_terminal_is_taken_out_and_markup_is_none() -> None:
    found = {**STATUS, "run": "\x1b[31m[red]x", "devices": [{**DEVICE, "name": "\x1b]0;title\x07[bold]n"}]}
    console = Console(width=200)
    with console.capture() as shown:
        console.print(command.table(found))
    assert "run ?[31m[red]x of" in shown.get() and "?]0;title?[bold]n" in shown.get()
