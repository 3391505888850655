"""Profile: the graphs that a board accepts, how new weights reach its engine, and its peak speed."""

from typing import Any, NamedTuple

from edgekit.providers import CPU

#: Runtime -> the entry of `Profile.versions` with the runtime's version.
RUNTIMES = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "acl": "cann"}


class Target(NamedTuple):
    """The requirements for the deployed graph."""

    opset: int
    ir_version: int
    #: Whether every shape must be fixed, the batch included.
    static: bool
    #: Names of rules in `edgekit.export.targets` that the graph must keep, besides versions, shapes and operators.
    rules: tuple[str, ...]
    #: ONNX operators that the converter accepts; empty for all of the operator set.
    operators: tuple[str, ...]
    #: Arithmetic of the engine, "float32" or "float16".
    precision: str
    #: Default norm policy: "batch" (learning uses the batch's statistics) or "frozen" (folded into convolutions).
    norm: str
    #: How the distances to codewords are computed: "conv" (one grouped 1x1 convolution) or "matmul".
    scores: str
    #: How codebooks reach the engine: "inputs" of the graph, or "initialisers", replaced as weights are.
    codebooks: str
    #: How weights reach the engine: "session" (a new one), "refit" or "rebuild".
    weights: str


class Hardware(NamedTuple):
    """Figures for predictions. They are peaks, which no program reaches."""

    #: The board's whole memory, shared by processor, accelerator and operating system.
    memory_gib: float
    bandwidth_gb_s: float
    #: Peak of the engine that runs the deployed graph, at the profile's precision, without sparsity.
    peak_gflops: float
    #: Processor cores that a user's program can have.
    cpu_cores: int
    #: Peak of those cores together, in float32: the learning graphs run there.
    cpu_gflops: float


class Profile(NamedTuple):
    """One board. A bundle's manifest holds `to_json` of it."""

    name: str
    title: str
    #: One of `RUNTIMES`.
    runtime: str
    #: Oldest Python of the board's system image, "3.6".
    python: str
    #: Component -> version, for people and for `doctor`: "8.2.1", "4.6.1 to 4.6.6", ">= 1.10", "5.1.x".
    versions: dict[str, str]
    target: Target
    hardware: Hardware
    #: Where each figure and rule comes from, what is calculated, and what is not confirmed.
    sources: tuple[str, ...]
    #: What ONNX Runtime runs the graphs that learn on, by its name in edgekit.providers.
    provider: str = CPU

    @property
    def runtime_version(self) -> str:
        """The version of the runtime itself."""
        return self.versions[RUNTIMES[self.runtime]]

    def to_json(self) -> dict[str, Any]:
        """Every field, as nested dicts and lists."""
        target = {**self.target._asdict(), "rules": [*self.target.rules], "operators": [*self.target.operators]}
        nested = {"target": target, "hardware": self.hardware._asdict(), "sources": [*self.sources]}
        return {**self._asdict(), "versions": dict(self.versions), **nested}
