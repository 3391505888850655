"""The back half as a torch.export archive."""

import io
import warnings

import torch
from torch import nn


def back_program(back: nn.Module, feature: torch.Tensor) -> bytes:
    """`back`, in the mode it is in, as a torch.export archive for any batch.

    Left out: sample inputs, which would be pickled; weights, which are in back.safetensors; and traces of the
    folders of this machine.
    """
    # Batch norm in training mode needs two values per channel.
    batch = torch.export.Dim("n", min=2 if back.training else 1, max=1 << 16)
    program = torch.export.export(back, (feature[:4],), dynamic_shapes=({0: batch},))
    program.example_inputs = None
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(key, None)
    for name, weight in program.state_dict.items():
        empty = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
        program.state_dict[name] = nn.Parameter(empty) if isinstance(weight, nn.Parameter) else empty
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch warns of the expanded tensors that stand for the weights.
        warnings.simplefilter("ignore", UserWarning)
        torch.export.save(program, buffer)
    return buffer.getvalue()
