"""Providers: what ONNX Runtime can run the graphs that learn on, and which of them a device takes.

ONNX Runtime calls them execution providers. Each is in a Python package of its own, of which a machine has one. Names
of packages and providers: https://onnxruntime.ai/docs/execution-providers.
"""

from typing import NamedTuple, Sequence, Tuple

from edgekit.errors import BackendError, UnknownName, UsageError


class Provider(NamedTuple):
    """One execution provider."""

    #: ONNX Runtime's name of it.
    name: str
    #: What to do where the installed onnxruntime lacks it.
    install: str
    #: Where its tensors are, in the words of `onnxruntime.OrtValue`: "cpu", "cuda", "cann".
    memory: str = "cpu"
    #: Its options, by name, and the name of the option for the number of threads, "" where it takes the session's.
    options: Tuple[Tuple[str, str], ...] = ()
    threads: str = ""
    #: Whether it wants the size of every tensor when it loads a graph: then each size of the batch has a session.
    static: bool = False


AUTO = "auto"
CPU = "cpu"
#: By their names in edgekit. cpu and openvino are run by the tests; cuda and cann have not been run.
PROVIDERS = {
    CPU: Provider("CPUExecutionProvider", "pip install onnxruntime"),
    "cuda": Provider(
        "CUDAExecutionProvider",
        "pip install onnxruntime-gpu in the place of onnxruntime; on a Jetson the wheel of its JetPack "
        "(docs/jetson.md)",
        memory="cuda",
    ),
    "cann": Provider(
        "CANNExecutionProvider", "pip install onnxruntime-cann in the place of onnxruntime", memory="cann", static=True
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        "pip install onnxruntime-openvino in the place of onnxruntime",
        # Processors with bfloat16 would otherwise compute in it.
        options=(("device_type", "CPU"), ("precision", "FP32")),
        threads="num_of_threads",
        static=True,
    ),
}


class Choice(NamedTuple):
    """A provider by its name in edgekit, why it is that one, and whether another was wanted."""

    name: str
    reason: str
    wanted: str


def check_provider(name: str) -> None:
    """UnknownName unless `name` is `AUTO` or in `PROVIDERS`."""
    if name not in PROVIDERS and name != AUTO:
        known = [AUTO, *PROVIDERS]
        raise UnknownName("provider", name, known, "there are: {}".format(", ".join(known)))


def choose(asked: str, exported_for: str, offered: Sequence[str]) -> Choice:
    """The provider for graphs `exported_for` one, when `asked` for a name or `AUTO`.

    `offered` is what `onnxruntime.get_available_providers()` says. UnknownName; UsageError for graphs of the CPU's form
    and another provider; BackendError when a provider that was asked for by name is not offered.
    """
    check_provider(asked)
    check_provider(exported_for)
    if asked == CPU:
        return Choice(CPU, "asked for", CPU)
    if asked == AUTO and exported_for == CPU:
        return Choice(CPU, "the bundle was exported for it", CPU)
    if exported_for == CPU:
        raise UsageError(
            "--provider {}: the bundle was exported for provider cpu, in a form that no other loads: export it again "
            "with --provider {}".format(asked, asked)
        )
    wanted = exported_for if asked == AUTO else asked
    if PROVIDERS[wanted].name in offered:
        return Choice(wanted, "asked for" if asked == wanted else "the bundle was exported for it", wanted)
    told = "the installed onnxruntime offers {}, not {}: {}".format(
        ", ".join(short(offered)), wanted, PROVIDERS[wanted].install
    )
    if asked == AUTO:
        return Choice(CPU, told, wanted)
    raise BackendError("provider '{}' cannot run here: {}; or leave --provider {} out".format(wanted, told, wanted))


def short(offered: Sequence[str]) -> Tuple[str, ...]:
    """The names in edgekit of what ONNX Runtime offers; its own where there is none."""
    names = {provider.name: name for name, provider in PROVIDERS.items()}
    return tuple(names.get(each, each) for each in offered)
