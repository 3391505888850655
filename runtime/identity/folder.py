"""The folder with a device's identity.

::

    device.key   its private key, which never leaves the device and which only its owner may read
    device.csr   the request for a certificate, which goes to the server
    device.pem   the certificate that the server signed; the name in it is the device's
    ca.pem       the certificate of the CA that signed it: it also signed the server's
"""

import os
import stat
from typing import Tuple

from edgekit.errors import IdentityError, UsageError
from edgekit.line.names import certificate_name_error
from edgekit.runtime.identity.openssl import Verdict, common_name, judge, make_key, make_request

KEY, REQUEST, CERTIFICATE, CA = "device.key", "device.csr", "device.pem", "ca.pem"
#: OpenSSL's numbers of errors -> what to do about them.
EXPIRED, NOT_YET = 10, 9
OTHER_CA = (18, 19, 20, 21, 7)
OTHER_HOST = (62, 64)


class Identity:
    """A device that is enrolled. It does not hold its key: that is read when a line is opened."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        #: The device's name, which the certificate says.
        self.name = name

    @property
    def ca(self) -> str:
        """The file of the CA's certificate."""
        return os.path.join(self.folder, CA)

    @property
    def pair(self) -> Tuple[str, str]:
        """The files of the certificate and the key."""
        return os.path.join(self.folder, CERTIFICATE), os.path.join(self.folder, KEY)

    def read(self) -> Tuple[bytes, bytes, bytes]:
        """The CA's certificate, the private key and the certificate, as PEM: what gRPC takes, in its order."""
        certificate, key = self.pair
        return _read(self.ca), _read(key), _read(certificate)


def open_identity(folder: str) -> Identity:
    """The identity in `folder`; IdentityError when it does not hold, with what to do."""
    certificate, key = os.path.join(folder, CERTIFICATE), os.path.join(folder, KEY)
    if not os.path.exists(key):
        told = "{} is missing: this device is not enrolled; `edgekit enroll request --name NAME -o {}` begins it"
        raise IdentityError(told.format(key, folder))
    if stat.S_IMODE(os.stat(key).st_mode) & 0o077:
        raise IdentityError("{} can be read by others: chmod 600 {}".format(key, key))
    for path in (certificate, os.path.join(folder, CA)):
        if not os.path.exists(path):
            told = "{} is missing: have {} signed where the server is (`edgekit enroll sign`), and bring both here"
            raise IdentityError(told.format(path, os.path.join(folder, REQUEST)))
    text = _read(certificate)
    verdict = judge(text, os.path.join(folder, CA), "sslclient")
    if verdict is not None:
        raise IdentityError("{}: {}; {}".format(certificate, verdict.words, advice(verdict, folder)))
    return Identity(folder, common_name(text))


def advice(verdict: Verdict, folder: str) -> str:
    """What to do about a device's certificate that does not hold."""
    if verdict.number == NOT_YET:
        return "is this device's clock right? `sudo timedatectl set-ntp true` sets it"
    if verdict.number == EXPIRED:
        return "have {} signed again (`edgekit enroll sign`); or is this device's clock wrong?".format(
            os.path.join(folder, REQUEST)
        )
    return "bring {} and {} of one `edgekit enroll sign`".format(CERTIFICATE, CA)


def request(folder: str, name: str) -> str:
    """The path of a certificate request for `name`, which it writes to `folder`. A key that is there is used again."""
    wrong = certificate_name_error(name)
    if wrong is not None:
        raise UsageError("--name: {}".format(wrong))
    key, path = os.path.join(folder, KEY), os.path.join(folder, REQUEST)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not os.path.exists(key):
            made = make_key()
            with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(made)
        text = make_request(key, name)
        with open(path + ".new", "wb") as file:
            file.write(text)
        os.replace(path + ".new", path)
    except OSError as error:
        raise UsageError("{} cannot be written: {}; choose another folder".format(folder, error.strerror)) from None
    return path


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise IdentityError("{} cannot be read: {}".format(path, error.strerror)) from None
