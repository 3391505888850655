"""The folder that `edgekit enroll init` makes, on the server.

::

    ca.key           the CA's private key: signs certificates. `edgekit serve` does not need it
    ca.pem           the CA's certificate, which devices get
    server.key       the server's private key
    server.pem       the server's certificate
    register.json    every certificate of a device, and whether it was revoked
"""

import os
import stat

from edgekit.errors import IdentityError

CA_KEY, CA, SERVER_KEY, SERVER, REGISTER = "ca.key", "ca.pem", "server.key", "server.pem", "register.json"


def read(folder: str, name: str) -> bytes:
    """The content of a file of `folder`; IdentityError when it cannot be read, or is a key that others can read."""
    path = os.path.join(folder, name)
    try:
        if name.endswith(".key") and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            raise IdentityError(f"{path} can be read by others: chmod 600 {path}")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise IdentityError(
            f"{path} cannot be read: {error.strerror}; `edgekit enroll init {folder}` makes the server's folder"
        ) from None


def write(folder: str, name: str, content: bytes) -> None:
    """Writes a file of `folder`, whole or not at all, a key for its owner alone; IdentityError when it cannot."""
    path = os.path.join(folder, name)
    mode = 0o600 if name.endswith(".key") else 0o644
    try:
        with os.fdopen(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
    except OSError as error:
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from None
