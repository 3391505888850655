import os
from typing import Any

import pytest

from edgekit.server import handshakes
from edgekit.server.handshakes import Handshakes, reason

LINE = (
    b"I1129 14:50:07.596141    6954 ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL: "
    b"error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired\n"
)
#: As older versions of gRPC write it.
OLDER = (
    b"E0 x.cc:1] Handshake failed with fatal error SSL_ERROR_SSL: error:100000c0:SSL routines:OPENSSL_internal:%s.\n"
)


def test_a_reason_is_told_once_in_a_while_and_the_rest_stays(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[dict[str, Any]] = []
    with Handshakes(events.append):
        os.write(2, LINE + LINE + b"other words\n")
        os.write(2, b"a traceback\n")
        os.write(2, OLDER % b"PEER_DID_NOT_RETURN_A_CERTIFICATE")
    told = "a handshake failed: its certificate does not hold: certificate has expired"
    assert events[0] == {"event": "refused", "device": None, "reason": told}
    assert [event["reason"] for event in events[1:]] == [
        "a handshake failed: it has no certificate: a device that is not enrolled"
    ]
    assert capfd.readouterr().err == "other words\na traceback\n"
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
    monkeypatch.setattr(handshakes, "QUIET_S", 0.0)
    again: list[dict[str, Any]] = []
    with Handshakes(again.append):
        os.write(2, LINE + LINE)
    assert len(again) == 2


def test_an_error_that_nobody_knows_is_told_as_it_is() -> None:
    assert reason("TLSV1_ALERT_UNKNOWN_CA", "") == "tlsv1 alert unknown ca"
