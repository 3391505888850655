"""A fake of the module onnxruntime with a provider that no test machine has: CUDA, which computes on the CPU here.

It has memory of its own: what is there comes to the host by `OrtValue.numpy` alone, and goes there by
`ortvalue_from_numpy` or a bound input; both are counted. A test compares its names and parameters with the real module.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as real

GPU = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
#: What the fake says when a node has no kernel, as the real one does.
NO_KERNEL = (
    "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has been "
    "explicitly disabled by the user."
)


class OrtValue:
    """A tensor in the memory of a device."""

    def __init__(self, array: np.ndarray, device: str, counts: dict[str, int], name: str = "") -> None:
        self._array, self._device, self._counts = array, device, counts
        #: The output of a session that it is.
        self.name = name

    def numpy(self) -> np.ndarray:
        self._counts["down"] += self._array.nbytes * (self._device != "cpu")
        return self._array.copy()

    def shape(self) -> list[int]:
        return list(self._array.shape)

    def data_type(self) -> str:
        name = self._array.dtype.name
        return f"tensor({'float' if name == 'float32' else name})"

    def device_name(self) -> str:
        return self._device


class IOBinding:
    """Inputs and outputs of a session."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, str] = {}
        self.values: list[OrtValue] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray) -> None:
        assert arr_on_cpu.flags.c_contiguous
        self._session.fake.counts["up"] += arr_on_cpu.nbytes
        self.inputs[name] = arr_on_cpu

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        assert ortvalue.device_name() == ("cuda" if self._session.provider == GPU else "cpu")
        self.inputs[name] = ortvalue._array

    def bind_output(
        self, name: str, device_type: str = "cpu", device_id: int = 0, element_type: Any = None, shape: Any = None,
        buffer_ptr: Any = None,
    ) -> None:  # fmt: skip
        self.outputs[name] = device_type

    def get_outputs(self) -> list[OrtValue]:
        return self.values


class Session:
    """An InferenceSession; CUDA's is one of the real module on the CPU."""

    def __init__(
        self, fake: "FakeOnnxRuntime", model: bytes, options: "SessionOptions", providers: Sequence[Any]
    ) -> None:
        self.fake = fake
        (self.provider, self.settings), self.entries = providers[0], options.entries
        if fake.without_kernel and self.entries.get("session.disable_cpu_ep_fallback") == "1":
            raise RuntimeError(NO_KERNEL)
        self.session = real.InferenceSession(model, providers=[CPU])

    def get_providers(self) -> list[str]:
        return [self.provider, CPU] if self.fake.starts and self.provider != CPU else [CPU]

    def get_inputs(self) -> list[Any]:
        return list(self.session.get_inputs())

    def get_outputs(self) -> list[Any]:
        return list(self.session.get_outputs())

    def io_binding(self) -> IOBinding:
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: Any = None) -> None:
        computed = self.session.run(list(iobinding.outputs), iobinding.inputs)
        iobinding.values = [
            OrtValue(array, device, self.fake.counts, name)
            for array, (name, device) in zip(computed, iobinding.outputs.items(), strict=True)
        ]


class SessionOptions:
    """Takes every attribute that the real one has, and the entries."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value

    def add_free_dimension_override_by_name(self, name: str, value: int) -> None:
        self.entries["dimension " + name] = str(value)


class FakeOnnxRuntime:
    """The module. `starts`: whether CUDA is there; `without_kernel`: whether each graph has a node that CUDA does not
    compute. `counts` has the bytes that went up to the device and down from it."""

    __spec__ = real.__spec__
    ExecutionMode = real.ExecutionMode

    def __init__(self, version: str = "1.18.0", starts: bool = True, without_kernel: bool = False) -> None:
        self.__version__ = version
        self.starts, self.without_kernel = starts, without_kernel
        self.counts = {"up": 0, "down": 0}
        self.sessions: list[Session] = []
        counts = self.counts

        class Value(OrtValue):
            @staticmethod
            def ortvalue_from_numpy(numpy_obj: np.ndarray, device_type: str = "cpu", device_id: int = 0) -> OrtValue:
                counts["up"] += numpy_obj.nbytes
                return OrtValue(numpy_obj.copy(), device_type, counts)

        self.OrtValue = Value
        self.SessionOptions = SessionOptions

    def get_available_providers(self) -> list[str]:
        return [GPU, CPU]

    def InferenceSession(
        self, path_or_bytes: bytes, sess_options: SessionOptions, providers: Sequence[tuple[str, Mapping[str, str]]]
    ) -> Session:
        self.sessions.append(Session(self, path_or_bytes, sess_options, providers))
        return self.sessions[-1]


#: Real class, and the fake's.
CLASSES = (
    (real.IOBinding, IOBinding), (real.OrtValue, FakeOnnxRuntime().OrtValue), (real.InferenceSession, Session),
    (real.SessionOptions, SessionOptions),
)  # fmt: skip
#: What the fake has of the real module's names: (real, fake).
HELD: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    *(
        (getattr(theirs, name), function)
        for theirs, ours in CLASSES
        for name, function in inspect.getmembers(ours, inspect.isfunction)
        if not name.startswith("_")
    ),
    (real.InferenceSession.__init__, FakeOnnxRuntime.InferenceSession),
    (real.get_available_providers, FakeOnnxRuntime().get_available_providers),
]
