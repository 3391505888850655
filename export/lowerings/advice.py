"""The refusal of an operator that has no lowering, with advice on what to write instead."""

import difflib
from collections.abc import Iterable
from typing import Any

from edgekit.errors import ExportError

#: What to write instead, by the name of the operator without its overload.
_ADVICE = {
    "_native_batch_norm_legit": "build the batch norm with track_running_stats=True",
    "_scaled_dot_product": "write it with matmul and softmax",
    "_weight_norm": "call torch.nn.utils.parametrize.remove_parametrizations on the layer first",
    "amax": "use nn.AdaptiveMaxPool2d(1)",
    "avg_pool3d": "leave local response normalisation out, or use batch norm in its place",
    "bernoulli": "a graph has no random numbers: leave it out in evaluation mode",
    "conv1d": "write it as a 2-d convolution",
    "einsum": "write it with matmul, permute and mul",
    "fill": "write a constant into a tensor with a product by a mask, or pad with torch.nn.functional.pad",
    "full": "pad with torch.nn.functional.pad instead of joining tensors made for the batch",
    "max": "use max pooling",
    "new_zeros": "pad with torch.nn.functional.pad instead of joining tensors made for the batch",
    "rand": "a graph has no random numbers: leave it out in evaluation mode",
    "randn": "a graph has no random numbers: leave it out in evaluation mode",
    "scaled_dot_product_attention": "write it with matmul and softmax",
    "softplus": "use SiLU, GELU or Mish",
    "zeros": "pad with torch.nn.functional.pad instead of joining tensors made for the batch",
    "zeros_like": "pad with torch.nn.functional.pad instead of joining tensors made for the batch",
}


def no_lowering(layer: str, target: Any, known: Iterable[Any]) -> ExportError:
    """The refusal of operator `target`, with advice, or with the operators of similar name among those `known`."""
    name = _base(target)
    advice = _ADVICE.get(name)
    if advice is None:
        near = difflib.get_close_matches(name, sorted({_base(k) for k in known}), n=3)
        advice = (
            f"operators of similar name that have one: {', '.join(near)}" if near else "write it with other operators"
        )
    return ExportError(
        f"layer '{layer}': operator {target} has no lowering to ONNX; {advice}, or cut before this layer"
    )


def _base(target: Any) -> str:
    return str(target).removeprefix("aten.").split(".")[0]
