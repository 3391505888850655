import pytest

from edgekit.codecs.entropy import kernels
from edgekit.errors import BackendError


@pytest.fixture(scope="session")
def loads() -> None:
    """Skips where the compiled kernels do not load; `test_kernels.py` says where they have to."""
    try:
        kernels.choose("native")
    except BackendError as error:
        pytest.skip(str(error))
