"""What the command line says of a fleet, as the patience and the rounds that it comes to."""

import math
from typing import Any

import pytest

from edgekit.errors import UnknownName, UsageError
from edgekit.sampling import Sampling
from edgekit.server.modes import EVERY, QUORUM, WAIT_S, FleetSettings
from edgekit.server.policy import Every, Patience, parse_every


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_each_mode_has_its_patience(mode: str) -> None:
    patience = FleetSettings(mode=mode).patience(3)
    assert (patience.devices, patience.start_s, patience.ahead) == (3, 240.0, None)
    assert (patience.step_s, patience.step_quorum) == (WAIT_S[mode], QUORUM[mode])
    assert (patience.round_s, patience.round_quorum) == (60.0, QUORUM["sync"])


def test_in_sync_a_step_waits_for_all_and_in_async_hardly() -> None:
    assert WAIT_S["sync"] >= 10 and WAIT_S["async"] <= 0.1 and QUORUM["sync"] > QUORUM["async"]


def test_what_is_said_is_done() -> None:
    given = FleetSettings("async", start_wait=1.0, step_wait=2.0, round_wait=3.0, quorum=0.75, ahead=4)
    assert given.patience(None) == Patience(None, 1.0, 2.0, 0.75, 3.0, 0.75, 60.0, False, None, 4, 60.0)


def test_front_halves_are_averaged_unless_there_is_one() -> None:
    assert FleetSettings().rounds(2).every == FleetSettings().rounds(None).every == parse_every(EVERY)
    assert not FleetSettings().rounds(1).every
    assert FleetSettings(sync_every="20").rounds(1).every == Every(steps=20), "what is said holds for one too"
    assert not FleetSettings(sync_every="0").rounds(8).every


def test_the_policy_of_rounds() -> None:
    given = FleetSettings(
        update_codec="fedavg", average="trimmed", norm_statistics="local", server_momentum=0.5, sampling="static:0.5"
    )
    policy = given.rounds(4)
    assert policy[2:] == ("trimmed", "local", 0.5, Sampling(0.5), None, None) and policy.codec.codec_id == "fedavg"
    policy = FleetSettings(update_codec_down="fedavg", update_layers="last:2").rounds(4)
    assert policy.layers == "last:2" and policy.codec.codec_id == "quantised"
    assert policy.down is not None and policy.down.codec_id == "fedavg"


@pytest.mark.parametrize(
    ("wrong", "error", "reason"),
    [
        ({"mode": "asynch"}, UnknownName, "did you mean async"),
        ({"sync_every": "often"}, UsageError, "--sync-every often"),
        ({"average": "median"}, UnknownName, "unknown average 'median'"),
        ({"norm_statistics": "none"}, UnknownName, "there are: average, local"),
        ({"server_momentum": 1.0}, UsageError, "--server-momentum 1.0"),
        ({"sampling": "some"}, UsageError, "--sampling some"),
        ({"sampling": "static:0.5", "sync_every": "0"}, UsageError, "--sampling: .* give --sync-every"),
        ({"update_codec_down": "fedavgs"}, UnknownName, "did you mean fedavg"),
        ({"update_layers": "last:1", "sync_every": "30s"}, UsageError, "--update-layers last:1: .* by the clock"),
        ({"update_layers": "last:1", "sampling": "dynamic"}, UsageError, "--update-layers last:1: .* leave --sampling"),
        ({"quorum": 1.5}, UsageError, "--quorum 1.5"),
        ({"ahead": -1}, UsageError, "--ahead -1: expected"),
        ({"step_wait": -1.0}, UsageError, "--step-wait -1.0"),
        ({"round_wait": math.inf}, UsageError, "--round-wait inf"),
        ({"start_wait": math.nan}, UsageError, "--start-wait nan"),
    ],
)
def test_what_makes_no_sense_is_found_before_anything_starts(wrong: dict[str, Any], error: Any, reason: str) -> None:
    FleetSettings().check()
    with pytest.raises(error, match=reason):
        FleetSettings(**wrong).check()


def test_a_server_is_for_one_device_at_least() -> None:
    with pytest.raises(UsageError, match="--devices 0: expected at least 1"):
        FleetSettings().patience(0)
