"""The boards by name, and a user's own by the path of its file."""

import os
from pathlib import Path

from edgekit.device_profiles.parse import parse
from edgekit.device_profiles.profile import Profile
from edgekit.errors import UnknownName

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
    """Names of the boards, weakest of a kind first."""
    return list(PROFILES)


def profile(name: str) -> Profile:
    """The board `name`, an alias of one, or what a file describes whose path ends in .toml; UnknownName, UsageError."""
    if name.endswith(".toml") or os.sep in name:
        return parse(Path(name))
    name = ALIASES.get(name, name)
    if name not in PROFILES:
        how_to_list = "`edgekit devices` lists them; the path of a .toml file describes another"
        raise UnknownName("device", name, [*PROFILES, *ALIASES], how_to_list)
    return parse(Path(__file__).parent / PROFILES[name])
