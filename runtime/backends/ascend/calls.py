"""pyACL with every return code checked: a call that fails becomes a BackendError that says what to do.

pyACL itself raises nothing. A call returns a code, or (value, code), or a value alone. Code 0 is success; a handle of 0
or None is a failure. Codes: CANN 8.1 `acl/acl_base.h`, `acl/error_codes/{rt,ge}_error_codes.h`.
"""

import importlib
import importlib.util
from typing import Any, Dict, Optional, Tuple

from edgekit.errors import BackendError
from edgekit.runtime.backends.ascend import cann

_WRONG_MODEL = "the .om is of another chip or CANN, or damaged: delete it, it is then compiled anew"
_LIFE_CYCLE = "this is a defect of edgekit's Ascend backend: please report it with this message"
_BOARD = "look into the board's log (~/ascend/log, dmesg) and restart the board when it persists"

#: Code -> (its name in the headers, what to do).
CODES: Dict[int, Tuple[str, str]] = {
    100000: ("INVALID_PARAM", _LIFE_CYCLE),
    100001: ("UNINITIALIZE", _LIFE_CYCLE),
    100002: ("REPEAT_INITIALIZE", _LIFE_CYCLE),
    100003: ("INVALID_FILE", _WRONG_MODEL),
    100006: ("PARSE_FILE", _WRONG_MODEL),
    100011: ("INVALID_MODEL_ID", _LIFE_CYCLE),
    100012: ("DESERIALIZE_MODEL", _WRONG_MODEL),
    100013: ("PARSE_MODEL", _WRONG_MODEL),
    100014: ("READ_MODEL_FAILURE", _WRONG_MODEL),
    100015: ("MODEL_SIZE_INVALID", _WRONG_MODEL),
    100017: ("MODEL_INPUT_NOT_MATCH", _LIFE_CYCLE),
    100018: ("MODEL_OUTPUT_NOT_MATCH", _LIFE_CYCLE),
    100019: ("MODEL_NOT_DYNAMIC", _LIFE_CYCLE),
    100026: ("UNSUPPORTED_DATA_TYPE", "export the graph again for this board's profile"),
    100027: ("FORMAT_NOT_MATCH", "export the graph again for this board's profile"),
    100037: ("REPEAT_FINALIZE", _LIFE_CYCLE),
    107000: ("RT_PARAM_INVALID", _LIFE_CYCLE),
    107001: ("RT_INVALID_DEVICEID", "`npu-smi info` lists the devices; edgekit uses device 0"),
    107002: ("RT_CONTEXT_NULL", _LIFE_CYCLE),
    107003: ("RT_STREAM_CONTEXT", _LIFE_CYCLE),
    107004: ("RT_MODEL_CONTEXT", _LIFE_CYCLE),
    145000: ("GE_PARAM_INVALID", _LIFE_CYCLE),
    145001: ("GE_EXEC_NOT_INIT", _LIFE_CYCLE),
    145002: ("GE_EXEC_MODEL_PATH_INVALID", _WRONG_MODEL),
    145003: ("GE_EXEC_MODEL_ID_INVALID", _LIFE_CYCLE),
    145006: ("GE_EXEC_MODEL_DATA_SIZE_INVALID", _WRONG_MODEL),
    200000: ("BAD_ALLOC", "the board is out of memory: end other programs, or export with a smaller --static-batch"),
    200001: ("API_NOT_SUPPORT", "install the CANN version that the device profile names"),
    200002: ("INVALID_DEVICE", "`npu-smi info` lists the devices; edgekit uses device 0"),
    200003: ("MEMORY_ADDRESS_UNALIGNED", _LIFE_CYCLE),
    200004: ("RESOURCE_NOT_MATCH", _LIFE_CYCLE),
    200005: ("INVALID_RESOURCE_HANDLE", _LIFE_CYCLE),
    207001: ("RT_MEMORY_ALLOCATION", "the board is out of memory: end other programs, or export with a smaller "
                                     "--static-batch"),
    300000: ("STORAGE_OVER_LIMIT", "free space on the board's disk"),
    500000: ("INTERNAL_ERROR", _BOARD),
    500001: ("FAILURE", _BOARD),
    500002: ("GE_FAILURE", _WRONG_MODEL),
    500003: ("RT_FAILURE", _BOARD),
    500004: ("DRV_FAILURE", "check that the driver runs (`npu-smi info`) and that this user is in group HwHiAiUser"),
    507899: ("RT_DRV_INTERNAL_ERROR", "check that the driver runs (`npu-smi info`) and that this user is in group "
                                      "HwHiAiUser"),
    545001: ("GE_LOAD_MODEL", _WRONG_MODEL),
}  # fmt: skip


def missing() -> Optional[str]:
    """None when Python finds a module acl, else what to install."""
    if importlib.util.find_spec("acl") is None:
        return "pyACL (module acl) is not on Python's path: install CANN on the board, then {}".format(cann.SOURCE)
    return None


class Acl:
    """The module `acl`; its functions go by their names below it: "rt.malloc" is `acl.rt.malloc`."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def do(self, name: str, *arguments: Any) -> None:
        """Makes a call that returns a code alone."""
        code = self._call(name, *arguments)
        if code != 0:
            raise self.error(name, arguments, code)

    def make(self, name: str, *arguments: Any) -> Any:
        """The value of a call that returns (value, code)."""
        value, code = self._call(name, *arguments)
        if code != 0:
            raise self.error(name, arguments, code)
        return value

    def handle(self, name: str, *arguments: Any) -> Any:
        """The value of a call that returns no code, and 0 or None on failure."""
        value = self._call(name, *arguments)
        if value is None or (isinstance(value, int) and value == 0):  # it may be an array
            raise BackendError(
                "acl.{}{} gave {!r}, expected a handle{}: {}".format(name, arguments, value, self._said(), _BOARD)
            )
        return value

    def number(self, name: str, *arguments: Any) -> int:
        """The value of a call that returns a count, a size, a type, or a code that the caller judges."""
        value = self._call(name, *arguments)
        if not isinstance(value, int):
            raise BackendError("acl.{}{} gave {!r}, expected a number{}".format(name, arguments, value, self._said()))
        return value

    def has(self, name: str) -> bool:
        """Whether this CANN has function `name`."""
        return self._find(name) is not None

    def _find(self, name: str) -> Any:
        found = self.module
        for part in name.split("."):
            found = getattr(found, part, None)
        return found

    def _call(self, name: str, *arguments: Any) -> Any:
        function = self._find(name)
        if function is None:
            raise BackendError("this CANN's pyACL has no acl.{}: {}".format(name, CODES[200001][1]))
        return function(*arguments)

    def error(self, name: str, arguments: Tuple[Any, ...], code: int) -> BackendError:
        """What to raise for `code` from function `name`."""
        label, advice = CODES.get(code, ("a code that acl_base.h of CANN 8.1 does not list", _BOARD))
        called = "acl.{}{}".format(name, arguments)
        return BackendError("{} failed with {} {}{}: {}".format(called, code, label, self._said(), advice))

    def _said(self) -> str:
        """CANN's own words about the last failure, where this version can say them."""
        words = self.module.get_recent_err_msg() if self.has("get_recent_err_msg") else None
        return " ({})".format(" ".join(str(words).split())) if words else ""


def load() -> Acl:
    """pyACL, imported; BackendError when it is there but does not load."""
    try:
        module = importlib.import_module("acl")
    except ImportError as error:
        raise BackendError("pyACL does not load: {}: {}".format(error, cann.SOURCE)) from error
    if not hasattr(module, "mdl"):
        raise BackendError(
            "the module acl in {} is not pyACL: {}".format(getattr(module, "__file__", "an unknown place"), cann.SOURCE)
        )
    return Acl(module)
