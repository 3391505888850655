import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from edgekit.errors import TransportError, UsageError
from edgekit.server.observe import web
from edgekit.server.observe.web import Page, Web, check_metrics


@pytest.fixture
def served() -> Iterator[Web]:
    def broken() -> Page:
        raise ZeroDivisionError

    made = Web("127.0.0.1:0", {"/here": lambda: Page(200, "text/plain", b"told"), "/broken": broken})
    yield made
    made.close()


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection(host, port, timeout=300)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Content-Length")
    finally:
        connection.close()


def test_a_page_is_served(served: Web) -> None:
    assert ask(served.port, "/here") == ask(served.port, "/here?x=1") == (200, b"told", "4")
    assert ask(served.port, "/here", "HEAD") == (200, b"", "4")


def test_other_paths_and_methods_are_refused(served: Web) -> None:
    code, content, _ = ask(served.port, "/elsewhere")
    assert code == 404 and b"/here" in content
    assert ask(served.port, "/here", "POST")[0] == 501


def test_an_error_of_a_page_is_told_and_the_next_is_served(served: Web, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        ask(served.port, "/broken")
    assert ask(served.port, "/here")[0] == 200
    served.close()
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_who_says_nothing_or_nonsense_is_let_go(
    served: Web, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web._Handler, "timeout", 0.1)
    for words in (b"", b"\0\xff\r\n\r\n", b"GET " + b"x" * 70000):
        with socket.create_connection(("127.0.0.1", served.port), timeout=300) as line:
            line.sendall(words)
            while True:
                try:
                    if not line.recv(1 << 16):
                        break
                except ConnectionResetError:
                    break
    assert ask(served.port, "/here")[0] == 200
    assert capfd.readouterr().err == ""


def test_no_more_than_so_many_at_a_time(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = [socket.create_connection(("127.0.0.1", served.port), timeout=300) for _ in range(web.MOST)]
    # Connections are taken in their order.
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask(served.port, "/here")
    for each in silent:
        each.close()
    while True:
        try:
            assert ask(served.port, "/here")[0] == 200
            break
        except (http.client.RemoteDisconnected, ConnectionResetError):
            continue


def test_ipv6() -> None:
    try:
        made = Web("[::1]:0", {"/here": lambda: Page(200, "text/plain", b"told")})
    except TransportError:
        pytest.skip("no IPv6 here")
    assert ask(made.port, "/here", host="::1")[1] == b"told"
    made.close()


def test_an_address_that_cannot_be_bound(served: Web) -> None:
    with pytest.raises(TransportError, match=rf"cannot listen at 127\.0\.0\.1:{served.port}: .*--metrics"):
        Web(f"127.0.0.1:{served.port}", {})
    with pytest.raises(TransportError, match=r"cannot listen at nowhere\.invalid:1"):
        Web("nowhere.invalid:1", {})


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:9", "[::1]:9"])
def test_loopback_needs_no_leave(address: str) -> None:
    check_metrics(address, insecure=False)


@pytest.mark.parametrize("address", ["0.0.0.0:9", "10.0.0.1:9", "board:9"])
def test_other_addresses_do(address: str) -> None:
    with pytest.raises(UsageError, match="--insecure"):
        check_metrics(address, insecure=False)
    check_metrics(address, insecure=True)


def test_an_address_that_is_none() -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        check_metrics("9090", insecure=True)


def test_json_is_a_page_of_its_kind() -> None:
    made = Web("127.0.0.1:0", {"/": lambda: Page(503, "application/json", json.dumps({"a": 1}).encode())})
    code, content, _ = ask(made.port, "/")
    made.close()
    assert code == 503 and json.loads(content) == {"a": 1}
