"""A board that asks for everything."""

from collections.abc import Callable

import pytest

from edgekit.device_profiles.profile import Hardware, Profile, Target
from edgekit.export.targets.check import BOARD_RULES

OPERATORS = [
    "Add", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "ConvTranspose",
    "Div", "GatherND", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "If", "MatMul", "MaxPool",
    "Mul", "ReduceMax", "ReduceMean", "Relu", "Reshape", "Slice", "Softmax", "TopK", "Transpose", "Where",
]  # fmt: skip


@pytest.fixture
def board() -> Callable[..., Profile]:
    """The board, with other fields of its target where they are given."""
    target = Target(
        11, 7, True, tuple(BOARD_RULES), tuple(OPERATORS), "float16", "frozen", "conv", "initialisers", "refit"
    )
    profile = Profile("strict", "A strict board", "acl", "3.6", {}, target, Hardware(4, 20, 500, 4, 30), ())
    return lambda **changes: profile._replace(target=target._replace(**changes))
