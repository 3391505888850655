"""What a look says of ports that are no server of ours; real servers are in tests/server/test_door.py and tests/e2e."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.errors import IdentityError
from edgekit.identity import layout
from edgekit.runtime.identity import look as looks
from edgekit.runtime.identity.folder import Identity
from edgekit.runtime.identity.look import look
from tests.enrolled import Enrolled


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    return Enrolled(tmp_path_factory.mktemp("enrolled"))


@pytest.fixture(scope="module")
def identity(enrolled: Enrolled) -> Identity:
    return enrolled.identity("nano")


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a port at which each connection is given to `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = server.accept()
                    with line, contextlib.suppress(OSError):
                        answer(line)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(300)


def test_what_does_not_listen_or_says_nothing_is_the_lines_matter(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "WAIT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for who in (identity, None):
            look(address, who)  # accepted by the system, answered by nobody
    for who in (identity, None):
        look(address, who)
        look("no-such-host.invalid:1", who)
    with listening(lambda line: None) as closes:
        for who in (identity, None):
            look(closes, who)


def test_a_port_of_another_protocol_speaks_no_tls(identity: Identity) -> None:
    with listening(lambda line: line.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")) as address:
        look(address, None)
        with pytest.raises(IdentityError, match="speaks no TLS"):
            look(address, identity)


def test_a_server_of_tls_1_2_that_refuses_with_an_alert(enrolled: Enrolled, identity: Identity) -> None:
    """In TLS 1.2 the refusal comes within the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(Path(enrolled.folder) / layout.SERVER, Path(enrolled.folder) / layout.SERVER_KEY)
    context.verify_mode = ssl.CERT_REQUIRED  # no CA is trusted

    def refuse(line: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError):
            context.wrap_socket(line, server_side=True).close()

    with listening(refuse) as address:
        with pytest.raises(IdentityError, match="turns the certificate of nano away"):
            look(address, identity)
        with pytest.raises(IdentityError, match="takes enrolled devices alone"):
            look(address, None)
