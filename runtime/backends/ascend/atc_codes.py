"""What ATC's error codes mean in plain words, and what to do about each.

Sources: the tables inside CANN itself (GE's `ge_error_code`, ops-base's `log.cpp`), E19010 from GE's parser. A code
that is not here is shown with ATC's own line alone.
"""

import re
from typing import Dict, List, NamedTuple, Tuple

_OPTION = "an option of the command is not one of this CANN's"
_CHECK_OPTION = "compare the command with `atc --help`, and the CANN version with the device profile's"
_SOC = "compare soc_version with `npu-smi info` (put 'Ascend' before the chip's name) and with the kernels installed"
_REPLACE = (
    "the operator is not one that this chip's CANN takes: replace it in the network, or cut before it "
    "(`edgekit check BUNDLE` names node and layer); an older CANN than the profile's may lack it too"
)
_REINSTALL = "install toolkit and kernels of the same CANN version, and `source` their set_env.sh"
_SHAPES = "export again with --static-batch, for this board's profile: no shape may be open or empty"
_DISK = "check that the folder exists, may be written by this user, and that its disk has space"
_EXPORT = "export the bundle again, with `--device` of this board"

#: Code -> (cause, what to do).
CODES: Dict[str, Tuple[str, str]] = {
    "E10001": (_OPTION, _SOC + "; " + _CHECK_OPTION),
    "E10002": ("the input shapes are not written as ATC wants them", _CHECK_OPTION),
    "E10003": (_OPTION, _CHECK_OPTION),
    "E10004": ("an option has no value", _CHECK_OPTION),
    "E10007": ("an option that this CANN needs is missing", _CHECK_OPTION),
    "E10010": ("the log level is none of debug, info, warning, error, null", _CHECK_OPTION),
    "E10011": ("an input shape is not made of positive numbers", _SHAPES),
    "E10013": ("the value of an option is out of range", _CHECK_OPTION),
    "E10014": (_OPTION, _CHECK_OPTION),
    "E10016": ("an option names an input that the graph does not have", _EXPORT),
    "E10017": ("an option names as input what is none", _EXPORT),
    "E10021": ("the path of a file is too long for ATC", "use a folder with a shorter path"),
    "E10022": ("a path lacks its file name", _DISK),
    "E10056": ("two options exclude each other", _CHECK_OPTION),
    "E10061": (_OPTION, _SOC + "; " + _CHECK_OPTION),
    "E10410": ("a file that the command names does not exist", _DISK),
    "E10501": ("CANN finds no prototype of an operator: ASCEND_OPP_PATH is not set, or it is unknown", _REINSTALL),
    "E11005": ("an input has no shape", _SHAPES),
    "E13000": ("a path does not exist", _DISK),
    "E13001": ("a file does not open", _DISK),
    "E13002": ("the path of a folder is too long for ATC", "use a folder with a shorter path"),
    "E13003": ("a file cannot be read", _DISK),
    "E13004": ("a file cannot be written", _DISK),
    "E13005": ("ATC cannot read the ONNX file", _EXPORT),
    "E13009": ("two operators have one name", _EXPORT),
    "E13010": ("CANN has no plugin for an operator", _REPLACE),
    "E13014": ("an operator has a parameter that ATC refuses", _REPLACE),
    "E13015": ("a file is empty or too large for ATC", _EXPORT),
    "E13023": ("the compiled model is too large", "cut the network earlier, so that less of it is on the device"),
    "E13024": ("an environment variable of CANN has a wrong value", _REINSTALL),
    "E13026": ("a path is not valid", _DISK),
    "E14001": ("an operator's inputs or parameters do not fit its kernel", _REPLACE),
    "E16001": ("the ONNX file lacks an input", _EXPORT),
    "E16002": ("ATC has no ONNX parser for an operator", _REPLACE),
    "E16004": ("the ONNX file has no graph", _EXPORT),
    "E16005": ("the ONNX file names several operator sets", _EXPORT),
    "E19010": ("ATC has no parser for an operator", _REPLACE),
    "E19999": ("ATC failed without saying why", "read its output; on a small board, compile on a host instead"),
    "E70002": ("an operator's kernel does not take this memory format", _REPLACE),
    "E70003": ("an operator's kernel does not take this type", _REPLACE),
    "E70004": ("a parameter of an operator has the wrong type", _REPLACE),
    "E70007": ("an operator does not take this input", _REPLACE),
    "E70009": ("an operator breaks a rule of its kernel", _REPLACE),
    "E70010": ("a tensor is too large for its kernel", "export with a smaller --static-batch"),
    "E70011": ("a tensor has too many or too few dimensions for its kernel", _REPLACE),
    "E76002": ("ATC has no ONNX parser for an operator", _REPLACE),
    "E80001": ("the kernels' description is incomplete", _REINSTALL),
    "EZ0501": ("CANN finds no prototype of an operator", _REINSTALL),
    "EZ3002": ("the kernel library does not take this form of an operator", _REPLACE),
    "EZ3003": ("no kernel was found for an operator: it is unknown to this chip, or no kernels are installed",
               _REINSTALL + "; else " + _REPLACE),
    "EZ9010": ("ATC has no parser for an operator", _REPLACE),
}  # fmt: skip

#: What ATC prints without a code. Text -> (cause, what to do).
TEXTS: Dict[str, Tuple[str, str]] = {
    "error while loading shared libraries": ("atc does not find its libraries", _REINSTALL),
    "No module named": ("atc does not find a Python package that it needs",
                        "pip install decorator sympy numpy psutil attrs cffi scipy for the Python that set_env.sh "
                        "selects"),
    "No space left on device": ("the disk is full", "free space, or set TMPDIR to a folder on another disk"),
    "ermission denied": ("atc may not read or write a file", _DISK),
}  # fmt: skip

_CODE = re.compile(r"\b(E[A-Z0-9]\d{4})\b")


class Cause(NamedTuple):
    """One reason that ATC gave: its code or text, the line, what that means, and what to do."""

    code: str
    line: str
    meaning: str
    advice: str


def causes(output: str) -> List[Cause]:
    """The reasons in what ATC printed, each code once, in order; [] when it gives none."""
    found: Dict[str, Cause] = {}
    for line in output.splitlines():
        for code in _CODE.findall(line):
            meaning, advice = CODES.get(code, ("not in edgekit's table", "read ATC's own line and its output"))
            found.setdefault(code, Cause(code, line.strip(), meaning, advice))
        for text, (meaning, advice) in TEXTS.items():
            if text in line:
                found.setdefault(text, Cause("atc", line.strip(), meaning, advice))
    return list(found.values())
