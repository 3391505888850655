"""Where Huawei's CANN is on this machine, and which version."""

import glob
import os
import shutil
from typing import List, Optional

from edgekit.errors import BackendError

#: What the user has to run first, in words: it sets the paths of CANN's libraries and tools.
SOURCE = (
    "`source /usr/local/Ascend/ascend-toolkit/set_env.sh` (or the set_env.sh of your CANN) in the shell that starts "
    "edgekit"
)
#: Where CANN is usually installed: looked at when no environment variable says.
PLACES = (
    "/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann", "/usr/local/Ascend/latest",
    "/usr/local/Ascend/nnrt/latest", "~/Ascend/ascend-toolkit/latest", "~/Ascend/cann",
)  # fmt: skip
#: Files that state the version of an installation; they lie in a folder named by architecture.
_VERSIONS = ("ascend_toolkit_install.info", "ascend_nnrt_install.info")


def homes() -> List[str]:
    """Folders that CANN may be in; the one that the environment selects comes first."""
    named = [os.environ.get(name, "") for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")]
    on_path = shutil.which("atc")
    if on_path:
        folder = os.path.dirname(os.path.realpath(on_path))
        named += [os.path.dirname(folder), os.path.dirname(os.path.dirname(folder))]
    return [home for home in named if home] + [os.path.expanduser(place) for place in PLACES]


def find_atc() -> Optional[str]:
    """The path of atc: on PATH, in ASCEND_TOOLKIT_HOME, or in the usual places; None when it is in none of them."""
    folders = [os.path.join(home, part) for home in homes() for part in ("bin", "compiler/bin", "atc/bin")]
    return shutil.which("atc") or shutil.which("atc", path=os.pathsep.join(folders))


def version() -> str:
    """The version of this machine's CANN, "7.0.RC1"; BackendError when no installation states it."""
    for home in homes():
        for name in _VERSIONS:
            for path in sorted(glob.glob(os.path.join(home, "*-linux", name))):
                stated = _stated(path)
                if stated:
                    return stated
    told = "the version of CANN is unknown: none of {} has *-linux/{}: install CANN, then {}"
    raise BackendError(told.format(", ".join(homes()), " or ".join(_VERSIONS), SOURCE))


def _stated(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise BackendError("{} does not open: {}".format(path, error.strerror)) from error
    pairs = [line.partition("=") for line in lines]
    return next((value.strip() for key, _, value in pairs if key.strip().lower() == "version" and value.strip()), None)
