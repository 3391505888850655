"""The profiles by name, and a user's own by the path of its file."""

import os
from pathlib import Path
from typing import Any

from edgekit.device_profiles.parse import parse
from edgekit.device_profiles.profile import RUNTIMES, Hardware, Profile, Target
from edgekit.errors import UnknownName
from edgekit.providers import PROVIDERS

PROFILES = {
    "cpu": "cpu.toml",
    "raspberry-pi-5": "raspberry-pi-5.toml",
    "jetson-nano": "jetson-nano.toml",
    "jetson-tx2": "jetson-tx2.toml",
    "jetson-xavier-nx": "jetson-xavier-nx.toml",
    "jetson-orin-nano": "jetson-orin-nano.toml",
    "jetson-orin-nx": "jetson-orin-nx.toml",
    "jetson-agx-orin": "jetson-agx-orin.toml",
    "jetson-thor": "jetson-thor.toml",
    "atlas-200-dk": "atlas-200-dk.toml",
    "atlas-200i-dk-a2": "atlas-200i-dk-a2.toml",
}
ALIASES = {"jetson": "jetson-orin-nano"}


def profiles() -> list[str]:
    """The names of the boards, the weakest of each kind first."""
    return list(PROFILES)


def profile(name: str) -> Profile:
    """The profile `name`: a board, an alias, or the path of a .toml file. UnknownName; UsageError for a wrong file."""
    if name.endswith(".toml") or os.sep in name:
        return parse(Path(name))
    name = ALIASES.get(name, name)
    if name not in PROFILES:
        how_to_list = "`edgekit devices` lists them; the path of a .toml file describes another"
        raise UnknownName("device", name, [*PROFILES, *ALIASES], how_to_list)
    return parse(Path(__file__).parent / PROFILES[name])


def from_json(value: dict[str, Any]) -> Profile:
    """The profile that `Profile.to_json` wrote into a bundle; ValueError for anything else."""
    try:
        target = dict(value["target"])
        lists = {key: tuple(target[key]) for key in ("rules", "operators")}
        nested = {"target": Target(**{**target, **lists}), "hardware": Hardware(**value["hardware"])}
        board = Profile(**{**value, **nested, "sources": tuple(value["sources"])})
    except (KeyError, TypeError) as error:
        raise ValueError(repr(error)) from None
    kinds = [type(field) for field in profile("cpu").target]
    texts = [
        board.name,
        board.title,
        board.python,
        board.runtime,
        board.provider,
        *board.target.rules,
        *board.target.operators,
    ]
    if [type(field) for field in board.target] != kinds or not all(isinstance(text, str) for text in texts):
        raise ValueError(repr(value))
    if board.runtime not in RUNTIMES:
        raise ValueError(f"runtime {board.runtime!r}")
    if board.provider not in PROVIDERS:
        raise ValueError(f"provider {board.provider!r}")
    return board
