"""The kernels of entropy coding: the compiled ones or numpy's."""

from edgekit.codecs.entropy import kernels
from edgekit.errors import EdgekitError
from edgekit.runtime.health.finding import Finding

_WORDS = {"native": "compiled kernels", "numpy": "numpy"}


def coder() -> Finding:
    """The finding about which kernels code entropy here, and why."""
    try:
        name, reason, asked = kernels.choice()
    except EdgekitError as error:
        advice = "unset {}".format(kernels.VARIABLE)
        return Finding("entropy coder", "failed", str(error), None, advice)
    text = "{}: {}".format(_WORDS[name], reason)
    if name == "native" or asked:
        return Finding("entropy coder", "ok", text, name)
    advice = "numpy gives the same bytes and takes longer; on another machine than these a run works so"
    return Finding("entropy coder", "warning", text, name, advice)
