"""A server's folder and enrolled devices, with real keys and certificates."""

from pathlib import Path

from edgekit.identity import authority
from edgekit.runtime.identity import folder
from edgekit.runtime.identity.folder import Identity, open_identity


class Enrolled:
    """`folder` is the server's; devices are made when they are asked for."""

    def __init__(self, place: Path, *hosts: str) -> None:
        self.place = place
        self.folder = str(place / "ca")
        authority.init(self.folder, hosts)

    def device(self, name: str, ca: str | None = None, days: float = 365) -> Path:
        """The folder of the device `name`, enrolled by the CA in `ca` (default: the server's)."""
        made = self.place / f"device-{len(list(self.place.iterdir()))}"
        request = folder.request(str(made), name)
        signed = authority.sign(ca or self.folder, Path(request).read_bytes(), request, days)
        (made / folder.CERTIFICATE).write_bytes(signed.certificate)
        (made / folder.CA).write_bytes(signed.ca)
        return made

    def identity(self, name: str) -> Identity:
        return open_identity(str(self.device(name)))
