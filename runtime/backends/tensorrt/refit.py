"""Refit: new values for the weights of a TensorRT engine, by the names of the ONNX initialisers.

TensorRT 8.2's parser stores some weights in another layout than the ONNX file (onnx-tensorrt 8.2-GA,
`builtin_op_importers.cpp`, read, not run). The matrix of a Gemm with transB=0 is transposed; that of a MatMul may be,
depending on the rank of the other operand; a batch norm is folded; and a name used at two nodes may have two layouts.
So on 8.2 a Gemm's matrix is given transposed, and the others are refused.
"""

from typing import Any, Dict, List, Set

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError
from edgekit.runtime.backends.tensorrt.execute import Execution, is_named
from edgekit.runtime.backends.tensorrt.messages import Messages
from edgekit.runtime.onnxfile import Model

EXPORT = "export with --device of this board, whose rules keep weights where they can be refitted"


class Refit:
    """Replaces the constants `names` of one engine. BackendError at once when one of them cannot be refitted."""

    def __init__(self, trt: Any, messages: Messages, engine: Any, model: Model, names: List[str]) -> None:
        self._trt = trt
        self._messages = messages
        self._engine = engine
        #: Every initialiser as the engine has it now: TensorRT may want those fused with a changed one again too.
        self._values = model.initializers
        self._transposed: Set[str] = set() if is_named(engine) else _transposed(model, names)
        if names:
            if not engine.refittable:
                raise BackendError("the engine takes no new weights: delete the kept one (EDGEKIT_CACHE)")
            with messages.during("the engine's weights cannot be listed"):
                lacking = sorted(set(names) - set(trt.Refitter(engine, messages.logger).get_all_weights()))
            if lacking:
                raise BackendError("the engine has no weights {} to refit: {}".format(lacking, EXPORT))

    def __call__(self, constants: Arrays, execution: Execution) -> None:
        """Refits `constants`. BackendError on failure; when a name or a size is refused, the engine is unchanged.

        `execution` gets a new context, because TensorRT 8 forbids the use of one made before the refit.
        """
        values = dict(self._values, **{name: array.copy() for name, array in constants.items()})
        with self._messages.during("the weights cannot be refitted"):
            refitter = self._trt.Refitter(self._engine, self._messages.logger)
            # TensorRT reads these arrays when it refits, and keeps only their addresses until then.
            given: Dict[str, np.ndarray] = {}
            wanted = sorted(constants)
            while wanted:
                for name in wanted:
                    if name in given or name not in values:
                        raise self._messages.error("weight '{}' is wanted, and cannot be given".format(name))
                    array = values[name].T if name in self._transposed else values[name]
                    given[name] = np.ascontiguousarray(array)
                    if not refitter.set_named_weights(name, self._trt.Weights(given[name])):
                        raise self._messages.error("weight '{}' is refused".format(name))
                wanted = sorted(refitter.get_missing_weights())
            execution.stop()
            if not refitter.refit_cuda_engine():
                raise self._messages.error("the weights cannot be refitted")
        self._values = values
        execution.start()


def _transposed(model: Model, names: List[str]) -> Set[str]:
    """Those of `names` that TensorRT 8.2 stores transposed. BackendError for one that it cannot refit by name."""
    transposed = set()
    for name in names:
        places = [(node, at) for node in model.nodes for at, given in enumerate(node.inputs) if given == name]
        kinds = [node.op for node, _ in places]
        if len(places) > 1 or {"MatMul", "BatchNormalization"} & set(kinds):
            told = "weight '{}' at {} cannot be refitted by name on this TensorRT: {}"
            raise BackendError(told.format(name, ", ".join(kinds), EXPORT))
        if any(node.op == "Gemm" and at == 1 and not node.attributes.get("transB") for node, at in places):
            transposed.add(name)
    return transposed
