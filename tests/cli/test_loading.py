import gc

import pytest

from edgekit.cli.loading import loading


def test_nobody_looks_for_garbage_while_libraries_load() -> None:
    before = gc.get_freeze_count()
    with loading():
        assert not gc.isenabled()
        made: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled() and gc.get_freeze_count() >= before + len(made)


def test_an_import_that_fails_leaves_it_as_it_was() -> None:
    with pytest.raises(ImportError), loading():
        import edgekit.not_there  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
