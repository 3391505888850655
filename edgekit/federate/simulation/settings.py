"""What a federated run over Flower is told, and how it reaches Flower's processes: a JSON file."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from edgekit.codecs.registry import parse_settings
from edgekit.errors import UnknownName, UsageError
from edgekit.federate.run import Plan
from edgekit.federate.server import Policy
from edgekit.federate.settings import Local

#: Name -> Flower's class, and what its settings are called there.
STRATEGIES: dict[str, tuple[str, dict[str, str]]] = {
    "fedavg": ("FedAvg", {}),
    "fedavgm": ("FedAvgM", {"lr": "server_learning_rate", "momentum": "server_momentum"}),
    "fedadagrad": ("FedAdagrad", {"lr": "eta", "tau": "tau"}),
    "fedadam": ("FedAdam", {"lr": "eta", "beta1": "beta_1", "beta2": "beta_2", "tau": "tau"}),
    "fedyogi": ("FedYogi", {"lr": "eta", "beta1": "beta_1", "beta2": "beta_2", "tau": "tau"}),
}


class Told(NamedTuple):
    """All that the processes of one run are told."""

    #: The network: its name, or "module:factory"; the shape (C,H,W) of its images; weights that it begins with.
    model: str
    shape: tuple[int, int, int]
    weights: str | None
    #: What names the classes, in the order of labels, and what images are normalised by.
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: The file of the images (`edgekit.tensorfile`), and the one that the network is written to.
    images: str
    network: str
    #: As in `parse_strategy`.
    strategy: str
    plan: Plan

    def to_json(self) -> str:
        plan = self.plan._asdict()
        return json.dumps({
            **self._asdict(), "plan": {**plan, "local": plan["local"]._asdict(), "policy": plan["policy"]._asdict()}
        })  # fmt: skip


def read(path: str) -> Told:
    """What `Told.to_json` wrote to the file `path`."""
    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    plan = told.pop("plan")
    local, policy = Local(**_tuples(plan.pop("local"))), Policy(**plan.pop("policy"))
    return Told(**_tuples(told), plan=Plan(**plan, local=local, policy=policy))


def parse_strategy(text: str) -> tuple[str, dict[str, float]]:
    """The class of Flower that `text` names, and its settings by Flower's names. UsageError, UnknownName.

    >>> parse_strategy("fedadam:lr=0.1,tau=0.01")
    ('FedAdam', {'eta': 0.1, 'tau': 0.01})
    """
    name, given = parse_settings(text)
    if name not in STRATEGIES:
        raise UnknownName("strategy", name, STRATEGIES, "there are: {}".format(", ".join(sorted(STRATEGIES))))
    flowers, names = STRATEGIES[name]
    for key, value in given.items():
        if key not in names:
            there = f"it takes {', '.join(names)}" if names else "it takes none"
            raise UnknownName(f"setting of strategy '{name}'", key, names, there)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise UsageError(f"strategy '{text}': {key} is {value}, expected a number that is not negative")
    return flowers, {names[key]: float(value) for key, value in given.items()}


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with tuples in the place of JSON's lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
