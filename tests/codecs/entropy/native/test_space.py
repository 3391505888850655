"""Memory for kernels, and arrays as they are passed: each thread's own, and always as long as was asked for."""

from concurrent.futures import ThreadPoolExecutor
from ctypes import addressof, c_void_p, cast, memset

import numpy as np
import pytest

from edgekit.codecs.entropy.native import library
from edgekit.codecs.entropy.native.space import KEPT, space


def test_a_thread_keeps_small_pieces():
    first = space("here", 1000)
    assert space("here", 10) is first and space("here", 1000) is first
    longer = space("here", 5000)
    assert addressof(longer) != addressof(first) and space("here", 1000) is longer
    assert addressof(space("there", 1000)) != addressof(longer)


def test_large_pieces_are_given_back():
    large = space("large", KEPT + 1)
    assert space("large", KEPT + 1) is not large


def test_threads_share_nothing():
    mine = space("shared", 1000)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(space, "shared", 1000).result()
    assert addressof(other) != addressof(mine)


def test_all_of_it_can_be_written():
    for size in (0, 1, 7, 8, 4096, KEPT // 2, KEPT // 2 + 1, KEPT, KEPT + 1, 3 * KEPT):
        memset(space("written", size), 255, size)


def test_arrays_go_as_they_are_or_not_at_all():
    read_only = np.frombuffer(b"abcdefgh", dtype=np.int32)
    for given in (np.arange(4, dtype=np.int32), np.empty(0, dtype=np.int32), read_only):
        passed = library.array("i4").from_param(given)
        assert cast(passed, c_void_p).value == given.ctypes.data
    for wrong in (np.arange(4), np.arange(8, dtype=np.int32)[::2], np.arange(4, dtype=np.float32)):
        with pytest.raises(TypeError, match="expected a contiguous one of int32"):
            library.array("i4").from_param(wrong)
