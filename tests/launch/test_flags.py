"""The command lines of the processes: what they parse to is what the settings say."""

from pathlib import Path

import pytest

from edgekit.cli.link import link
from edgekit.cli.serve import serve
from edgekit.export.settings import BoardSettings, NamedData, NamedNetwork, as_coding
from edgekit.launch import flags
from edgekit.launch.settings import Run, Server, Training
from edgekit.runtime.__main__ import parser
from edgekit.saves import Saves
from edgekit.server.modes import FleetSettings

RUN = Run(
    NamedNetwork("vgg11"),
    NamedData("mnist", "files", 500),
    as_coding("raw"),
    BoardSettings(),
    Training(3, "dirichlet:0.5", 4, 16, 2, 5, 3, "reference", "10mbit+50ms", augment="flip,crop:4"),
    Server(
        "adam",
        0.01,
        0.8,
        1e-4,
        "constant",
        "dct:zone=2",
        "0.4",
        0.5,
        3,
        "cpu",
        2,
        False,
        "500steps",
        FleetSettings(
            "async", "20", "fedavg", "quantised:step=1", "last:1", "trimmed", "local", 0.5, "all", 7.0, 1.5, 8.0, 0.25,
            joint_batch=64, ahead=4,
        ),
    ),
    seed=7,
    metrics="127.0.0.1:9464",
)  # fmt: skip
PLAIN = RUN._replace(data=NamedData(), training=Training(), server=Server(), metrics=None)


def test_the_server_is_told_its_settings() -> None:
    command, *arguments = flags.server(RUN, "bundle", "out")
    got = serve.make_context(command, arguments).params
    expected = {**RUN.server.as_options(), "bundle": "bundle", "out": "out", "seed": 7, "devices": 3, "as_json": True}
    expected["metrics"] = "127.0.0.1:9464"
    alone = {"listen": "127.0.0.1:0", "overwrite": False, "identity": None, "insecure": False, "resume": None}
    alone["rank_timeout"] = 60.0
    assert got == {**expected, **alone}
    assert Server.from_options(got) == RUN.server


def test_a_device_is_told_its_settings() -> None:
    command, *arguments = flags.device(RUN, "bundle", "out", 1, 50051)
    got = vars(parser(command).parse_args(arguments))
    expected = RUN.training._asdict()
    del expected["devices"], expected["link"]
    expected |= {"bundle": "bundle", "out": "out", "server": "127.0.0.1:50051", "share": "1/3", "seed": 7, "json": True}
    # Devices in step have one network, and test a part of the images each.
    expected["test_share"] = "1/3"
    expected |= {"dataset": "mnist", "data": "files", "limit": 500, "reconnect": RUN.server.fleet.reconnect}
    assert got.items() >= expected.items()


def test_the_link_is_told_its_settings() -> None:
    command, *arguments = flags.link(RUN, "10mbit+50ms", 50051)
    got = link.make_context(command, arguments).params
    expected = {"link": "10mbit+50ms", "target": "127.0.0.1:50051", "connections": 3, "seed": 7, "as_json": True}
    assert got.items() >= expected.items()


@pytest.mark.parametrize(
    "flag",
    [
        "--gradient-codec", "--data", "--limit", "--augment", "--sync-every", "--update-codec-down",
        "--update-layers", "--step-wait", "--quorum", "--ahead",
        "--metrics",
    ],
)  # fmt: skip
def test_what_is_not_chosen_is_left_to_the_process(flag: str) -> None:
    lines = (flags.server(PLAIN, "bundle", "out"), flags.device(PLAIN, "bundle", "out", 0, 50051))
    assert not any(flag in line for line in lines)
    lines = (flags.server(RUN, "bundle", "out"), flags.device(RUN, "bundle", "out", 0, 50051))
    assert any(flag in line for line in lines)


def test_both_are_told_to_go_on(tmp_path: Path) -> None:
    out = str(tmp_path)
    # One that was killed before the server had saved anything begins anew.
    assert "--resume" not in flags.server(RUN, "bundle", out, resume=True)
    Saves(out, "server").write(0, {})
    command, *arguments = flags.server(RUN, "bundle", out, resume=True)
    assert serve.make_context(command, arguments).params["resume"] == out
    command, *arguments = flags.device(RUN, "bundle", "out", 1, 50051, resume=True)
    assert parser(command).parse_args(arguments).resume
