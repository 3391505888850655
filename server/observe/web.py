"""Web: pages over HTTP, for programs that watch a server. TLS and passwords are a proxy's, where wanted.

Who asks costs a thread of `MOST` for as long as the answer takes; more at a time are turned away.
"""

import socket
import sys
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any, NamedTuple

from edgekit.errors import TransportError, UsageError
from edgekit.line.address import check_address
from edgekit.line.clear import is_loopback

#: Requests at a time, and seconds that a client may say or take nothing.
MOST, SILENT_S = 16, 10.0


class Page(NamedTuple):
    """An answer: HTTP's code, the kind of content, and the content."""

    code: int
    kind: str
    content: bytes


#: What answers GET of a path.
Pages = Mapping[str, Callable[[], Page]]


def check_metrics(address: str, insecure: bool) -> None:
    """UsageError when --metrics `address` is none, or leaves this machine and `insecure` was not asked for."""
    check_address(address)
    if not insecure and not is_loopback(address):
        raise UsageError(
            f"--metrics {address} leaves this machine, and it is served in the clear, to everyone: give a loopback "
            "address, and a proxy of your own in front of it; or --insecure, on a network where you trust everyone"
        )


class Web:
    """Serves `pages` at `address`, HOST:PORT, port 0 for any free one, until it is closed; `port` is the bound one.

    TransportError when the address cannot be bound.
    """

    def __init__(self, address: str, pages: Pages) -> None:
        host, port = check_address(address)
        try:
            family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(family, found, pages)
        except OSError as error:
            raise TransportError(
                f"cannot listen at {address}: {error.strerror}; choose another --metrics HOST:PORT, or end the process "
                "that has it"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no more requests."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    # Those beyond what one look at the socket takes wait in the system's queue.
    request_queue_size = MOST

    def __init__(self, family: int, address: Any, pages: Pages) -> None:
        self.address_family = family
        self.pages = pages
        self._free = BoundedSemaphore(MOST)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away, or says nothing, is no error of this process.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SILENT_S
    server_version, sys_version = "edgekit", ""

    def do_GET(self) -> None:
        page = self._page()
        self.wfile.write(page.content)

    def do_HEAD(self) -> None:
        self._page()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: they come every few seconds."""

    def _page(self) -> Page:
        """The page that is asked for; its head is written."""
        answer = self.server.pages.get(self.path.partition("?")[0])
        if answer is None:
            known = ", ".join(self.server.pages)
            page = Page(404, "text/plain; charset=utf-8", f"there is nothing here, only {known}\n".encode())
        else:
            page = answer()
        self.send_response(page.code)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.content)))
        self.end_headers()
        return page
