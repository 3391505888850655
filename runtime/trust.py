"""Trust in a bundle: where a device is enrolled, it loads only the bundle that its server has."""

from edgekit.bundle import MANIFEST, Bundle
from edgekit.errors import BundleError
from edgekit.line.messages import Ping, Pong
from edgekit.runtime.transport import Transport


def check_bundle(bundle: Bundle, transport: Transport) -> None:
    """BundleError unless the server behind `transport` has the same bundle to the last byte.

    The digest is that of the manifest, which has the hash of every file, and each is verified again when it is read.
    """
    transport.send(Ping(0))
    theirs = transport.expect(Pong, 0).bundle
    if theirs != bundle.digest:
        raise BundleError(
            "{}: {} has sha256 {}, the server's has {}: it was changed, or it is another bundle; nothing of it was "
            "loaded. Transfer the server's bundle again".format(bundle.path, MANIFEST, bundle.digest, theirs[:64])
        )
