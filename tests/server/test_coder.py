"""The coder: one at a time, and batches before gradients."""

import threading
from collections.abc import Callable

from edgekit.server.coder import Coder
from tests.server.lines import wait_until


def test_a_batch_goes_before_a_gradient_that_came_first() -> None:
    coder, order = Coder(), []

    def work(kind: str) -> Callable[[], None]:
        def run() -> None:
            with coder.decoding() if kind == "batch" else coder.coding():
                order.append(kind)

        return run

    threads = []
    with coder.coding():
        for kind in ("gradient", "batch", "gradient", "batch"):
            threads.append(threading.Thread(target=work(kind)))
            threads[-1].start()
        wait_until(lambda: coder.waiting == (2, 2))
        assert not order
    for thread in threads:
        thread.join(60)
    assert order == ["batch", "batch", "gradient", "gradient"] and coder.waiting == (0, 0)


def test_an_error_lets_the_next_one_in() -> None:
    coder = Coder()
    try:
        with coder.decoding():
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with coder.coding():
        assert coder.waiting == (0, 0)
