"""The server: whether it answers, how far away it is, whether its clock agrees, whether it has the same bundle."""

import contextlib
import time
from typing import List, NamedTuple, Optional

import edgekit
from edgekit.errors import IdentityError, PayloadError, Refused, TransportError
from edgekit.line import messages
from edgekit.line.meter import Meter
from edgekit.runtime.health.finding import Finding
from edgekit.runtime.identity.folder import Identity
from edgekit.runtime.transport import Grpc, Transport

#: The quickest of so many pings counts: the others waited somewhere.
PINGS = 5
#: Seconds for each answer.
WAIT_S = 10.0
#: Seconds that two clocks may differ by.
SKEW_S = 1.0


class Answer(NamedTuple):
    """Of a pong: seconds for the way there and back, and the seconds that the server's clock is ahead of this one."""

    round_trip_s: float
    skew_s: float
    bundle: str
    version: str
    devices: int


def server(address: str, digest: Optional[str], identity: Optional[Identity] = None) -> List[Finding]:
    """What the server at `address` answers; `digest` is the bundle that it should have, None for any.

    With an `identity` it is asked over mutual TLS, as that device. It is asked without joining: a run that goes on
    there is not disturbed. UsageError when `address` is none.
    """
    advice = "look at the server there, at the address, and at firewalls between"
    try:
        with contextlib.closing(Grpc(address, Meter(), timeout_s=WAIT_S, identity=identity)) as transport:
            pong = ping(transport)
    except TransportError as error:
        return [Finding("server", "failed", str(error), None, advice)]
    except IdentityError as error:
        return [Finding("server", "failed", str(error), None, "docs/identity.md says what each of these errors means")]
    except PayloadError as error:
        text = "{} answers, but not as edgekit does: {}".format(address, error)
        return [Finding("server", "failed", text, None, advice)]
    except Refused as error:
        text = "{} is reachable, but answers no ping ({})".format(address, error)
        update = "where it knows none it is older and says neither its time nor its bundle: update edgekit there"
        return [Finding("server", "warning", text, None, update)]
    text = "{} answers in {:.1f} ms, {} devices in training".format(address, 1e3 * pong.round_trip_s, pong.devices)
    value = {"round_trip_s": pong.round_trip_s, "devices": pong.devices, "version": pong.version}
    found = [Finding("server", "ok", text, value), _clock(pong)]
    if pong.version != edgekit.__version__:
        text = "it runs edgekit {}, this is {}".format(pong.version[:40], edgekit.__version__)
        found[0] = Finding("server", "warning", text, value, "update the older one")
    if digest is not None:
        found.append(_bundle(pong.bundle, digest))
    return found


def ping(transport: Transport) -> Answer:
    """The quickest of `PINGS` answers."""
    pongs = []
    for step in range(PINGS):
        sent, start = time.time(), time.perf_counter()
        transport.send(messages.Ping(step))
        pong = transport.expect(messages.Pong, step)
        took = time.perf_counter() - start
        # As in NTP: the server looked at its clock half way.
        pongs.append(Answer(took, pong.time - (sent + took / 2), pong.bundle, pong.version, pong.devices))
    return min(pongs)


def _clock(pong: Answer) -> Finding:
    way = "ahead of" if pong.skew_s > 0 else "behind"
    text = "the server's is {:.3f} s {} this one, within {:.3f} s".format(abs(pong.skew_s), way, pong.round_trip_s / 2)
    if abs(pong.skew_s) - pong.round_trip_s / 2 <= SKEW_S:
        return Finding("clock", "ok", text, pong.skew_s)
    advice = "let both take the time from the network: `sudo timedatectl set-ntp true`"
    return Finding("clock", "warning", text, pong.skew_s, advice)


def _bundle(theirs: str, ours: str) -> Finding:
    if theirs == ours:
        return Finding("server's bundle", "ok", "the same, {}".format(ours[:12]), theirs)
    text = "the server has {}, here is {}: it would refuse this device".format(theirs[:12], ours[:12])
    return Finding("server's bundle", "failed", text, theirs, "give both the same bundle folder")
