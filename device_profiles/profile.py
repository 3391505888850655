"""Profile: what a board takes, how new weights reach its engine, and how fast it is at best."""

from typing import Any, NamedTuple

#: Runtime -> the entry of `Profile.versions` that is its own version.
RUNTIMES = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "acl": "cann"}


class Target(NamedTuple):
    """What the deployed graph has to be."""

    opset: int
    ir_version: int
    #: Every shape is static, the batch included.
    static: bool
    #: Names of the rules in `edgekit.export.targets` that the graph is held to, besides versions, shapes and operators.
    rules: tuple[str, ...]
    #: ONNX operators that the converter takes; empty: whatever the operator set has.
    operators: tuple[str, ...]
    #: Arithmetic of the engine, "float32" or "float16".
    precision: str
    #: Default norm policy, "batch" (statistics of the batch, while learning) or "frozen" (folded into convolutions).
    norm: str
    #: How the distances to codewords are computed: "conv" (one grouped 1x1 convolution) or "matmul".
    scores: str
    #: How codebooks reach the engine: "inputs" of the graph, or "initialisers", replaced as weights are.
    codebooks: str
    #: How weights reach the engine: "session" (a new one), "refit" or "rebuild".
    weights: str


class Hardware(NamedTuple):
    """Figures for predictions; peaks, which no program reaches."""

    #: All of the board's memory, which processor, accelerator and operating system share.
    memory_gib: float
    bandwidth_gb_s: float
    #: Of the engine that runs the deployed graph, at the profile's precision, dense.
    peak_gflops: float
    #: Cores that a program of the user gets.
    cpu_cores: int
    #: Of those cores together in float32: the graphs that learn run there.
    cpu_gflops: float


class Profile(NamedTuple):
    """One board. `to_json` is what travels in a bundle's manifest."""

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

    @property
    def runtime_version(self) -> str:
        """The entry of `versions` that is the runtime's own."""
        return self.versions[RUNTIMES[self.runtime]]

    def to_json(self) -> dict[str, Any]:
        """Nested dicts and lists, with every field."""
        target = {**self.target._asdict(), "rules": [*self.target.rules], "operators": [*self.target.operators]}
        nested = {"target": target, "hardware": self.hardware._asdict(), "sources": [*self.sources]}
        return {**self._asdict(), "versions": dict(self.versions), **nested}
