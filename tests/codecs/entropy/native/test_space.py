"""Memory for kernels: each thread's own, kept where it is small, and always as long as was asked for."""

from concurrent.futures import ThreadPoolExecutor
from ctypes import addressof, memset

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
