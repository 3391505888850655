"""The program `openssl` (1.1.1 or newer), which boards have: makes keys and requests, and judges certificates."""

import os
import re
import subprocess
import tempfile
from typing import List, NamedTuple, Optional

from edgekit.errors import IdentityError

#: `openssl req` wants a configuration, and a system's own may ask for more than a name.
CONFIG = "[req]\ndistinguished_name=name\nstring_mask=utf8only\n[name]\n"
_VERDICT = re.compile(r"error (\d+) at \d+ depth lookup:\s*(.+)")


class Verdict(NamedTuple):
    """Why a certificate does not hold: OpenSSL's number of the error, and its words."""

    number: int
    words: str


def make_key() -> bytes:
    """A new private key, ECDSA P-256, as PEM."""
    return _run(["ecparam", "-name", "prime256v1", "-genkey", "-noout"])


def make_request(key: str, name: str) -> bytes:
    """A certificate request for `name`, signed with the key in file `key`, as PEM; the key stays in its file."""
    subject = "/CN=" + re.sub(r"([\\/+])", r"\\\1", name)
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as config:
        config.write(CONFIG)
        config.flush()
        return _run(["req", "-new", "-sha256", "-utf8", "-config", config.name, "-key", key, "-subj", subject])


def judge(certificate: bytes, ca: str, purpose: str, host: Optional[str] = None) -> Optional[Verdict]:
    """Why `certificate` (PEM) does not hold; None where it does.

    `ca` is the file of the CA's certificate, `purpose` "sslserver" or "sslclient", and `host` whose it must be.
    """
    check = [] if host is None else ["-verify_ip" if _is_ip(host) else "-verify_hostname", host]
    done = _start(["verify", "-purpose", purpose, *check, "-CAfile", ca], certificate)
    if done.returncode == 0:
        return None
    words = (done.stdout + done.stderr).decode("utf-8", "replace")
    found = _VERDICT.search(words)
    if found is None:
        raise _failed(words)
    return Verdict(int(found.group(1)), found.group(2).strip())


def common_name(certificate: bytes) -> str:
    """The name in `certificate` (PEM); IdentityError where it has none."""
    told = _run(["x509", "-noout", "-subject", "-nameopt", "utf8,sep_multiline,lname,align"], certificate)
    for line in told.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "commonName":
            return value.strip()
    raise IdentityError(
        "the certificate is of nobody: it has no common name; sign a request of `edgekit enroll request`"
    )


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _run(arguments: List[str], given: bytes = b"") -> bytes:
    done = _start(arguments, given)
    if done.returncode:
        raise _failed(done.stderr.decode("utf-8", "replace"))
    return done.stdout


def _start(arguments: List[str], given: bytes) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            ["openssl", *arguments],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Nothing but the CA that is named is trusted: not those of the system.
            env=dict(os.environ, LC_ALL="C", SSL_CERT_DIR=os.devnull, SSL_CERT_FILE=os.devnull),
            timeout=300,
        )
    except OSError as error:
        told = "the program openssl cannot be started ({}): sudo apt-get install openssl"
        raise IdentityError(told.format(error.strerror)) from None


def _failed(words: str) -> IdentityError:
    said = words.strip().splitlines() or ["nothing"]
    return IdentityError("openssl failed; it said: {:.300}".format(said[-1]))
