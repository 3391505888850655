"""Rules for graphs that learn on a provider of ONNX Runtime other than the CPU's: only what every one has kernels for.

ONNX Runtime runs what a provider has no kernel for on the CPU, and copies its inputs and outputs there and back.
"""

import onnx

from edgekit.device_profiles.registry import profile
from edgekit.errors import ExportError
from edgekit.export.graph import TRAINING
from edgekit.export.targets.board_rule import BoardRule, each, told
from edgekit.export.targets.check import ALWAYS, refusals, refuse
from edgekit.export.targets.view import View, attributes

#: Operators of opset 15 that CUDA's provider computes, from and to its own memory, in float32; Shape, Size and Range,
#: whose results are on the CPU, are left out. github.com/microsoft/onnxruntime docs/OperatorKernels.md, commit 001d12d.
OPERATORS = (
    "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Conv",
    "ConvTranspose", "CumSum", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherElements", "GatherND", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "ScatterElements", "ScatterND", "Selu",
    "Sigmoid", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum",
    "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor",
)  # fmt: skip


class ProviderRefusal(ExportError):
    """Graphs that learn, which have to run on the CPU."""


def _given_statistics(view: View, node: onnx.NodeProto) -> str | None:
    if attributes(node).get("training_mode", 0):
        return told("statistics of the batch", "given ones", "compute them by reductions (export/portable.py)")
    return None


def _no_indices(view: View, node: onnx.NodeProto) -> str | None:
    return told("an output of indices", "none", "find the largest by comparison") if any(node.output[1:]) else None


RULES = {
    **ALWAYS,
    "given-statistics": BoardRule("batch norm: with given statistics", each(_given_statistics, "BatchNormalization")),
    "no-indices": BoardRule("max pooling: without indices", each(_no_indices, "MaxPool")),
}


def check_learning(model: onnx.ModelProto, provider: str, layers: dict[str, str]) -> None:
    """ProviderRefusal with node and layer of what `model`, which is to learn on `provider`, holds against `RULES`."""
    target = profile("cpu").target._replace(
        opset=TRAINING.opset, ir_version=TRAINING.ir_version, rules=(), operators=OPERATORS
    )
    refuse(refusals(View(model, target), RULES, layers), f"provider {provider}", ProviderRefusal)
