"""Backend: one graph on one device. The base class checks, times and names errors; a subclass fills four hooks."""

import contextlib
import time
from abc import ABC, abstractmethod
from typing import Any, Dict, Iterator, Mapping, Optional, Union

import numpy as np

from edgekit.bundle import GraphSpec
from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError, ShapeError, UsageError
from edgekit.providers import AUTO, CPU, Choice, check_provider
from edgekit.tensors import check_all


class Kept:
    """A tensor that stays where an engine computes, for later runs there; this one is in the host's memory."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.dtype, self.shape = values.dtype, values.shape

    def array(self) -> np.ndarray:
        """Its values, in the host's memory."""
        return self._values


#: What `Backend.run` takes for a tensor.
Fed = Union[np.ndarray, Kept]


def _on_host(fed: Fed) -> np.ndarray:
    return fed.array() if isinstance(fed, Kept) else fed


class Backend(ABC):
    """One loaded ONNX graph. The engine may overwrite the arrays that `run` returns at the next `run`."""

    backend_id = ""
    #: Id of the backend for the learning graphs, front_train and front_grad; "" when this one runs them too.
    learns_on = ""

    @classmethod
    def missing(cls) -> Optional[str]:
        """None when this backend can be used here, else what to install, in words."""
        return None

    @classmethod
    def provider_for(cls, asked: str, exported_for: str) -> Choice:
        """The provider (edgekit/providers.py) for graphs `exported_for` one, when `asked` for one or "auto".

        UsageError for a name that this backend has nothing to do with, UnknownName for one that nobody knows; where a
        backend has providers, the errors of `edgekit.providers.choose`.
        """
        check_provider(asked)
        if asked not in (AUTO, CPU):
            told = "--provider {}: providers are ONNX Runtime's, and here {} runs the graphs that learn: leave it out"
            raise UsageError(told.format(asked, cls.backend_id))
        return Choice(CPU, "{} has no other".format(cls.backend_id), CPU)

    def __init__(
        self,
        model: bytes,
        graph: GraphSpec,
        threads: int = 1,
        device: Optional[Dict[str, Any]] = None,
        provider: str = CPU,
    ) -> None:
        self.graph = graph
        self.threads = threads
        #: The device profile, as the bundle's manifest has it; {} when none was given.
        self.device = device or {}
        #: The provider that runs the graph, by its name in edgekit.
        self.provider = provider
        #: Seconds that the last `run` spent in the engine.
        self.last_run_s = 0.0
        #: Seconds that all replacements of constants took together, and how many there were.
        self.refresh_s = 0.0
        self.refreshes = 0
        self._held: Dict[str, Fed] = {}
        with self._named():
            self._open(model)

    def run(self, feeds: Mapping[str, Fed]) -> Arrays:
        """Outputs by name. `feeds` are `graph.inputs` by name; `set_weights` must have set the held inputs before.

        ShapeError when an input or an output is not as declared, BackendError when the engine fails.
        """
        return {name: _on_host(out) for name, out in self._computed(feeds).items()}

    def run_kept(self, feeds: Mapping[str, Fed]) -> Dict[str, Kept]:
        """As `run`, but the outputs stay where they were computed, and later runs do not overwrite them.

        Backends of the same class and provider take them among their feeds.
        """
        outputs = self._computed(feeds)
        return {name: out if isinstance(out, Kept) else Kept(out.copy()) for name, out in outputs.items()}

    def place(self, array: np.ndarray) -> Kept:
        """`array` where this engine computes, for the runs and the weights of backends of its class and provider."""
        return Kept(array)

    def _computed(self, feeds: Mapping[str, Fed]) -> Mapping[str, Fed]:
        where = "{} on {}".format(self.graph.file, self.backend_id)
        check_all(self.graph.inputs, feeds, where)
        check_all(self.graph.held, self._held, where + ", held inputs")
        given = {name: fed.array() if type(fed) is Kept else fed for name, fed in dict(self._held, **feeds).items()}
        start = time.perf_counter()
        with self._named():
            outputs = self._run(given)
        self.last_run_s = time.perf_counter() - start
        check_all(self.graph.outputs, outputs, where)
        return outputs

    def run_batch(self, feeds: Arrays) -> Arrays:
        """Outputs by name, as `run`, for any batch up to that of a static graph. ShapeError for a larger one.

        A smaller batch is padded with copies of its last image, and the outputs are cut to the images given.
        """
        size = self.graph.inputs[0].shape[0]
        count = len(feeds[self.graph.inputs[0].name])
        if size in (-1, count):
            return self.run(feeds)
        if count > size:
            told = "{} takes batches of {} images, got {}: export it again with --static-batch {}"
            raise ShapeError(told.format(self.graph.file, size, count, count))
        missing = size - count
        outputs = self.run({name: np.concatenate([a, a[-1:].repeat(missing, axis=0)]) for name, a in feeds.items()})
        batched = {spec.name for spec in self.graph.outputs if len(spec.shape) > 1}
        return {name: array[:count] if name in batched else array for name, array in outputs.items()}

    def set_weights(self, named: Mapping[str, Fed]) -> None:
        """Sets `graph.held` inputs and `graph.constants` to new values, by name; ShapeError for any other name."""
        held = {spec.name: spec for spec in self.graph.held}
        constants = {spec.name: spec for spec in self.graph.constants}
        for name, array in named.items():
            if name not in held and name not in constants:
                raise ShapeError(
                    "{} has no weight '{}'; it has {}".format(self.graph.file, name, sorted(held) + sorted(constants))
                )
            (held.get(name) or constants[name]).check(array, self.graph.file)
        self._held.update({name: array for name, array in named.items() if name in held})
        changed = {name: _on_host(array) for name, array in named.items() if name in constants}
        if changed:
            start = time.perf_counter()
            with self._named():
                self._replace(changed)
            self.refresh_s += time.perf_counter() - start
            self.refreshes += 1

    def close(self) -> None:
        """Frees the engine; the backend is not usable afterwards."""
        with self._named():
            self._close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Puts the names of graph and backend in front of errors; a ShapeError has them already."""
        try:
            yield
        except (BackendError, OSError) as error:
            raise BackendError("{} on {}: {}".format(self.graph.file, self.backend_id, error)) from error

    @abstractmethod
    def _open(self, model: bytes) -> None:
        """Loads `model`, the bytes of an ONNX file; imports the vendor library here and nowhere else."""

    @abstractmethod
    def _run(self, feeds: Dict[str, Any]) -> Mapping[str, Fed]:
        """Runs the graph; vendor errors become BackendError. `feeds` are arrays, and what this class itself kept."""

    @abstractmethod
    def _replace(self, constants: Arrays) -> None:
        """Replaces the values of initialisers, by name."""

    def _close(self) -> None:
        return None
