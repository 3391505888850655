"""Checks a deployed graph against the board rules of a profile: what the converter would refuse, and what to do."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx

from edgekit.device_profiles.profile import Profile
from edgekit.errors import ExportError, UnknownName
from edgekit.export.targets import graph_rules, layer_rules, operator_rules
from edgekit.export.targets.board_rule import BoardRule, Fault, each, told
from edgekit.export.targets.view import View

#: Scores (distances to codewords) must be below this eighth of the largest float16. The rest is for the sums that they
#: are computed from, which can be larger than the scores.
LARGEST_SCORE = 65504 / 8
FP16_RANGE = "fp16-range"
#: How many refusals `require` spells out.
SHOWN = 5


def _on_data(view: View) -> Iterator[Fault]:
    """No faults: this rule is about scores on calibration images, which are not in the graph; see `check_range`."""
    return iter(())


#: Board rules that hold for every board, by name.
ALWAYS = {
    "opset": BoardRule("the operator set of the target, in a format it reads", graph_rules.opset),
    "static-shapes": BoardRule("every size of every tensor is known, the batch included", graph_rules.static_shapes),
    "operators": BoardRule("operators that the converter takes", each(operator_rules.operators)),
}
_CONVS = ("Conv", "ConvTranspose")
_POOLS = ("AveragePool", "MaxPool")
#: Board rules that hold for the boards whose profiles name them.
BOARD_RULES = {
    "float32-input": BoardRule("every input is float32", graph_rules.float32_input),
    "int32-output": BoardRule("integer outputs are int32 and come from a Cast", graph_rules.int32_output),
    "arg-reduce": BoardRule(
        "ArgMin, ArgMax: keepdims=0, over one of the last four axes and not the first, of floats",
        each(operator_rules.arg_reduce, "ArgMax", "ArgMin"),
    ),
    FP16_RANGE: BoardRule(
        f"distances to codewords stay below {LARGEST_SCORE:.0f}, so that float16 holds them", _on_data
    ),
    "topk": BoardRule(
        "TopK: the largest, sorted, a constant K up to 1024, of floats", each(operator_rules.topk, "TopK")
    ),
    "gemm-bias": BoardRule("Gemm: with bias, alpha = beta = 1", each(layer_rules.gemm_bias, "Gemm")),
    "conv-explicit": BoardRule(
        "convolutions: kernel, strides, pads, dilations and group written out", each(layer_rules.conv_explicit, *_CONVS)
    ),
    "conv-constant": BoardRule(
        "convolutions: kernel and bias are initialisers", each(layer_rules.conv_constant, *_CONVS)
    ),
    "conv-ascend": BoardRule(
        "Conv: kernel, pad, dilation <= 255, stride <= 63, width <= 4096; no hx1 output; 1x1 only from a whole input",
        each(layer_rules.conv_ascend, "Conv"),
    ),
    "pool-plain": BoardRule(
        "pooling: no indices, no dilation, no storage_order or count_include_pad; kernel, strides, pads written out",
        each(layer_rules.pool_plain, *_POOLS),
    ),
    "pool-ascend": BoardRule(
        "pooling: kernel <= 255, its area <= 256, stride <= 63, width <= 4096", each(layer_rules.pool_ascend, *_POOLS)
    ),
    "clip-bounds": BoardRule("Clip: both bounds, as initialisers", each(layer_rules.clip_bounds, "Clip")),
    "no-batch-norm": BoardRule("batch norm is folded", each(layer_rules.no_batch_norm, "BatchNormalization")),
    "integer-arithmetic": BoardRule(
        "no division, power, rounding, root, exponential or reduction of integers",
        each(operator_rules.integer_arithmetic, *operator_rules.NOT_ON_INTEGERS),
    ),
    "integer-free": BoardRule(
        "no arithmetic on integers at all", each(operator_rules.integer_free, *operator_rules.ARITHMETIC)
    ),
    "avoid": BoardRule(
        f"none of {', '.join(operator_rules.AVOIDED)}", each(operator_rules.avoid, *operator_rules.AVOIDED)
    ),
    "where-types": BoardRule("Where: two values of one type, not bool", each(operator_rules.where_types, "Where")),
    "reduce-axes": BoardRule(
        "reductions list their axes", each(operator_rules.reduce_axes, *operator_rules.REDUCTIONS)
    ),
    "transpose-perm": BoardRule("Transpose: perm written out", each(operator_rules.transpose_perm, "Transpose")),
    "softmax-axis": BoardRule(
        "Softmax: axis written out", each(operator_rules.softmax_axis, "Hardmax", "LogSoftmax", "Softmax")
    ),
    "refit-names": BoardRule("an initialiser that is refitted feeds one node", graph_rules.refit_names),
    "refit-layout": BoardRule(
        "what is refitted is in no MatMul, Gemm with transB=0 or batch norm",
        each(layer_rules.refit_layout, "BatchNormalization", "Gemm", "MatMul"),
    ),
    "conv-transpose-plain": BoardRule(
        "ConvTranspose: of images, without dilation", each(layer_rules.conv_transpose_plain, "ConvTranspose")
    ),
}


class Refusal(NamedTuple):
    """One fault of a graph, with the board rule that it breaks. As in Fault, `node` and `operator` may be empty."""

    rule: str
    node: str
    operator: str
    #: The network's layer, empty where none stands behind the node.
    layer: str
    message: str

    def __str__(self) -> str:
        place = f"{self.operator} '{self.node}'" if self.node else "graph"
        layer = f" of layer '{self.layer}'" if self.layer else ""
        return f"{place}{layer}, rule {self.rule}: {self.message}"


def check(
    model: onnx.ModelProto, profile: Profile, layers: Mapping[str, str], replaceable: Collection[str] = ()
) -> list[Refusal]:
    """Every place where `model` breaks a board rule of `profile`; an empty list for a graph that the board takes.

    `layers` gives the network's layer of a node, `replaceable` the initialisers that get new values on the device.
    UnknownName when the profile names a board rule that does not exist.
    """
    view = View(model, profile.target, replaceable)
    rules = dict(ALWAYS)
    for name in profile.target.rules:
        if name not in BOARD_RULES:
            raise UnknownName(
                "board rule", name, BOARD_RULES, f"profile {profile.name} names it, there are: {', '.join(BOARD_RULES)}"
            )
        rules[name] = BOARD_RULES[name]
    return refusals(view, rules, layers)


def refusals(view: View, rules: Mapping[str, BoardRule], layers: Mapping[str, str]) -> list[Refusal]:
    """Every place where a graph breaks one of `rules`, which are given by name."""
    return [
        Refusal(name, fault.name, fault.operator, layers.get(fault.name, ""), fault.message)
        for name, rule in rules.items()
        for fault in rule.check(view)
    ]


def check_range(largest_score: float, profile: Profile) -> Refusal | None:
    """A refusal if `largest_score`, the largest magnitude of scores on calibration images, is too much for float16."""
    target = profile.target
    if target.precision != "float16" or FP16_RANGE not in target.rules or abs(largest_score) < LARGEST_SCORE:
        return None
    expected = f"less than {LARGEST_SCORE:.0f}, an eighth of float16's largest number"
    remedy = "put a ReLU6 or a batch norm before the cut, or cut elsewhere"
    return Refusal(FP16_RANGE, "", "", "", told(f"scores up to {largest_score:.4g}", expected, remedy))


def require(
    model: onnx.ModelProto, profile: Profile, layers: Mapping[str, str], replaceable: Collection[str] = ()
) -> None:
    """ExportError with the first refusals, if `check` finds any."""
    refuse(check(model, profile, layers, replaceable), f"{profile.name} ({profile.title})")


def refuse(found: Sequence[Refusal], who: str, error: type[ExportError] = ExportError) -> None:
    """The `error` that `who` does not take the graph, with the first of the refusals `found`, if there are any."""
    if found:
        more = len(found) - SHOWN
        lines = [f"{who} does not take this graph:", *map(str, found[:SHOWN])]
        raise error("\n  ".join(lines + ([f"and {more} more"] if more > 0 else [])))
