"""Answers codebook messages: the server's codec tables follow the device's."""

from edgekit.errors import Refused
from edgekit.line.messages import Ack, Codebook
from edgekit.server.session import Session
from edgekit.server.setup import Setup


def patch_tables(setup: Setup, session: Session, message: Codebook) -> Ack:
    """Patches the session's tables, from one version to the next."""
    if message.version != session.tables_version + 1:
        raise Refused(f"got codebook version {message.version}, expected {session.tables_version + 1}")
    session.tables = setup.codec.patch(session.tables, message.update)
    session.tables_version += 1
    return Ack(session.number, message.version)
