"""What TensorRT logs while it works, kept so that an error can quote it."""

import contextlib
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, Optional

from edgekit.errors import BackendError

EXPORT = "export again with --device of this board, whose rules leave out what its TensorRT lacks"
#: Lines that an error quotes at most.
QUOTED = 6
#: (part of what TensorRT says, what to do); the first that fits is told.
ADVICE = (
    ("out of memory", "the board has too little free memory: close other programs, or export a smaller --static-batch"),
    ("insufficient memory", "the board has too little free memory: close other programs, or use swap while building"),
    ("could not find any implementation", "no kernel fits in the free memory: close other programs and start again"),
    ("serialization", "the engine is of another TensorRT, or damaged"),
    ("version tag does not match", "the engine is of another TensorRT"),
    ("unsupported", EXPORT),
    ("no importer", EXPORT),
    ("cuda", "look at `dmesg` for what the driver says"),
)


class Messages:
    """Holds a TensorRT logger, `logger`, and the last errors it got. One per process and TensorRT module: the library
    sends everything to the first logger that it is given."""

    def __init__(self, trt: Any) -> None:
        self._kept: Deque[str] = deque(maxlen=QUOTED)
        self._errors = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)
        self._silent = (trt.ILogger.VERBOSE,)
        #: Called with every line that is not verbose; None for nobody.
        self.listener: Optional[Callable[[str], None]] = None
        # Made at run time, because its base class exists only where TensorRT is installed.
        self.logger = type("Logger", (trt.ILogger,), {"log": lambda _, severity, text: self._hear(severity, text)})()

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Forgets earlier messages; turns exceptions of TensorRT's Python part into BackendError "`what`: ..."."""
        self._kept.clear()
        try:
            yield
        except (RuntimeError, TypeError, ValueError, MemoryError, AttributeError) as error:
            raise self.error(what, str(error)) from error

    def error(self, what: str, cause: str = "") -> BackendError:
        """An error that says `what` failed, what TensorRT said since `during` began, and what to do about it."""
        said = "; ".join(([cause] if cause else []) + list(self._kept)) or "no message"
        advice = [advice for part, advice in ADVICE if part in said.lower()]
        advice.append("try --backend onnxruntime, and report this with the bundle")
        return BackendError("{}: TensorRT says: {}: {}".format(what, said, advice[0]))

    def _hear(self, severity: Any, text: str) -> None:
        if severity in self._errors:
            self._kept.append(text)
        if self.listener and severity not in self._silent:
            self.listener(text)


_BY_MODULE: Dict[Any, Messages] = {}


def messages(trt: Any) -> Messages:
    """The `Messages` of module `trt`, made at the first call."""
    if trt not in _BY_MODULE:
        _BY_MODULE[trt] = Messages(trt)
    return _BY_MODULE[trt]
