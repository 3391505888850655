"""What clients are told, and what is refused before anything runs."""

from typing import Any

import pytest

from edgekit.errors import UnknownName, UsageError
from edgekit.federate.settings import Local, Scaling, parse_scaling


def test_defaults_make_sense() -> None:
    Local().check()
    Scaling().check()
    assert (Local().rate, Local(optimizer="adam").rate, Local(lr=0.3).rate) == (0.05, 0.001, 0.3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"epochs": 1.5}, {"batch": 1}, {"lr": -1.0}, {"lr": float("nan")}, {"momentum": 1.0},
        {"weight_decay": -0.1}, {"validation": 1.0}, {"validation": -0.1}, {"augment": "turn"}, {"optimizer": "rms"},
        {"norms": "local"}, {"precision": "float16"}, {"schedule": "steps"},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Local(**wrong).check()


def test_scaling_is_spelled() -> None:
    assert parse_scaling("off") is None
    assert parse_scaling("on") == Scaling()
    assert parse_scaling("on:epochs=3,schedule=cosine,lr=0.1") == Scaling(3, lr=0.1, schedule="cosine")
    assert parse_scaling("on:layers=0+3") == Scaling(layers=("0", "3"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "off:epochs=1",
        "on:epochs=0",
        "on:epochs=a",
        "on:epochs=true",
        "on:lr=-1",
        "on:schedule=up",
        "on:share=0",
        "on:share=1.1",
    ],
)
def test_other_scaling_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_scaling(text)


def test_a_setting_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownName, match="epochs"):
        parse_scaling("on:epoch=1")
