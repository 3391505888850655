"""A look at the server's door: why TLS does not come about there. gRPC itself only says that nobody answers.

It is a handshake by Python's ssl, as another connection, that believes any certificate; `openssl` judges it afterwards.
"""

import socket
import ssl
from typing import NamedTuple, Optional

from edgekit.errors import IdentityError
from edgekit.line.address import check_address
from edgekit.runtime.identity.folder import EXPIRED, NOT_YET, OTHER_CA, OTHER_HOST, Identity
from edgekit.runtime.identity.openssl import Verdict, judge

#: Seconds to connect, and for each answer.
WAIT_S = 10.0
#: How often a certificate must be turned away before it counts: a line that breaks at that moment looks the same.
TRIES = 3


class Answer(NamedTuple):
    """The server's certificate as PEM, empty where it broke off before; and whether it went on to HTTP/2."""

    certificate: bytes
    begun: bool


def look(address: str, identity: Optional[Identity]) -> None:
    """IdentityError when TLS, or what it lacks, keeps this device and the server at `address` apart.

    Returns when it does not, and when nothing answers there at all.
    """
    host, port = check_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if identity is not None:
        try:
            context.load_cert_chain(*identity.pair)
        except OSError as error:  # ssl.SSLError is one
            told = "{} and {} do not belong together, or cannot be read ({}): sign the request beside the key again"
            raise IdentityError(told.format(*identity.pair, error)) from None
    answer = None
    for _ in range(TRIES):
        try:
            with socket.create_connection((host, port), WAIT_S) as line:
                answer = _handshake(context, line, identity is not None)
        except OSError:
            return  # the line's matter, not that of TLS
        if answer is None or identity is None or answer.begun:
            break
    if answer is None:
        if identity is not None:
            told = "the server at {} speaks no TLS, {} cannot trust it: start it with `edgekit serve --identity DIR`"
            raise IdentityError(told.format(address, identity.name))
        return
    if identity is None:
        raise IdentityError(
            "the server at {} takes enrolled devices alone, over TLS: give this one's --identity DIR; "
            "`edgekit enroll request` begins it".format(address)
        )
    verdict = None if not answer.certificate else judge(answer.certificate, identity.ca, "sslserver", host)
    if verdict is not None:
        raise IdentityError(
            "the server at {} cannot be trusted, its certificate: {}; {}".format(
                address, verdict.words, _advice(verdict, host)
            )
        )
    if not answer.begun:
        raise IdentityError(
            "the server at {} turns the certificate of {} away, in {}: its own log says why; most likely another CA "
            "signed it, or the clocks differ. `edgekit enroll sign` there signs a request of this device's".format(
                address, identity.name, identity.folder
            )
        )


def _handshake(context: ssl.SSLContext, line: socket.socket, waits: bool) -> Optional[Answer]:
    """What comes of a handshake; None where no TLS is spoken."""
    try:
        with context.wrap_socket(line) as secured:
            certificate = ssl.DER_cert_to_PEM_cert(secured.getpeercert(True) or b"").encode()
            # A server that does not like a certificate closes only now; one that does begins HTTP/2 by itself.
            return Answer(certificate, waits and _begins(secured))
    except ssl.SSLEOFError:
        raise  # closed without a word
    except ssl.SSLError as error:
        return Answer(b"", False) if "ALERT" in (error.reason or "") else None


def _begins(secured: ssl.SSLSocket) -> bool:
    try:
        return bool(secured.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def _advice(verdict: Verdict, host: str) -> str:
    if verdict.number == NOT_YET:
        return "is this device's clock right? `sudo timedatectl set-ntp true` sets it"
    if verdict.number == EXPIRED:
        return "`edgekit enroll init DIR` there makes a new one, then start the server again"
    if verdict.number in OTHER_HOST:
        return "`edgekit enroll init DIR --host {}` there names this host too, then start the server again".format(host)
    if verdict.number in OTHER_CA:
        return "is it the right server? This device was enrolled by another: its ca.pem has not signed that one's"
    return "`edgekit enroll init DIR` there makes a new one"
