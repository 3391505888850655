"""Answers codebook messages: the server's codec tables follow the device's."""

from edgekit.errors import Refused
from edgekit.line.messages import Ack, Codebook
from edgekit.server.session import Session
from edgekit.server.setup import Setup


def patch_tables(setup: Setup, session: Session, message: Codebook) -> Ack:
    """Patches the session's tables; an update that comes again, because its ack was lost, changes nothing."""
    again = message.version == session.tables_version and session.tables_version > 0
    if not again:
        if message.version != session.tables_version + 1:
            raise Refused(f"got codebook version {message.version}, expected {session.tables_version + 1}")
        session.tables = setup.codec.patch(session.tables, message.update)
        session.tables_version += 1
    return Ack(session.number, message.version)
