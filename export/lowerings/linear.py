"""Lowerings of linear layers and products of matrices."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from edgekit.export.lowerings.call import Call, Lowering


def linear(c: Call, a: SimpleNamespace) -> str:
    """A Gemm where x is (n,features). It always has a bias: some converters read one without looking if it is there."""
    if c.rank(a.x) == 2:
        bias = a.bias or c.graph.constant(np.zeros(c.shape[-1], dtype=np.float32))
        return c.op("Gemm", [a.x, a.weight, bias], transB=1)
    product = c.op("MatMul", [a.x, c.transpose(a.weight, [1, 0])])
    return c.op("Add", [product, a.bias]) if a.bias else product


def matmul(c: Call, a: SimpleNamespace) -> str:
    factors = [a.x, a.mat2 if hasattr(a, "mat2") else a.other]
    if min(map(c.rank, factors)) < 2:
        raise c.refused("with a vector", "make it a matrix with unsqueeze")
    return c.op("MatMul", factors)


def addmm(c: Call, a: SimpleNamespace) -> str:
    if (a.alpha, a.beta) != (1, 1):
        raise c.refused(f"with alpha={a.alpha}, beta={a.beta}", "write the product and the sum as two operations")
    return c.op("Add", [c.op("MatMul", [a.mat1, a.mat2]), a.x])


_aten = torch.ops.aten
LOWERINGS: dict[Any, Lowering] = {
    _aten.linear.default: linear,
    _aten.matmul.default: matmul,
    _aten.mm.default: matmul,
    _aten.bmm.default: matmul,
    _aten.addmm.default: addmm,
}
