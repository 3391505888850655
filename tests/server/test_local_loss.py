"""What the server decides of the local loss, tells its devices, and refuses."""

from collections.abc import Callable

import pytest

from edgekit.bundle import Bundle
from edgekit.errors import UsageError
from edgekit.server.calibrate import calibrator
from edgekit.server.local_loss import LocalLoss
from edgekit.server.service import Service
from edgekit.server.setup import setup_from_bundle
from tests.runtime.loopback import service
from tests.server.talk import CPU, SGD, feature, greeting, hello


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (LocalLoss(-0.5), "--local-loss -0.5: expected a number of 0 or more"),
        (LocalLoss(float("nan")), "--local-loss nan"),
        (LocalLoss(float("inf")), "--local-loss inf"),
        (LocalLoss(0.5, 0), "--gradient-every 0: expected at least 1"),
        (LocalLoss(0.0, 2), "--gradient-every 2: .*give --local-loss too"),
    ],
)
def test_what_makes_no_sense_is_refused(given: LocalLoss, words: str, small_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=words):
        given.check()
    with pytest.raises(UsageError, match=words):
        setup_from_bundle(small_bundle, CPU, calibrator("dct", 0), SGD, "cosine", None, given)


def test_the_bundle_must_have_a_head(make: Callable[..., Service]) -> None:
    with pytest.raises(UsageError, match=r"--local-loss 0.5: .* has no local head: export the bundle again"):
        make(local_loss=LocalLoss(0.5))


def test_the_welcome_tells_it_and_the_head_is_averaged(small_bundle: Bundle) -> None:
    for weight in (0.0, 0.5):
        server = service(small_bundle, local=LocalLoss(weight))
        reply = server.handle(greeting(server, "a"))
        assert reply.header.get("local_loss", 0.0) == weight and ("local_loss" in reply.header) == bool(weight)
        for names in (server.setup.front, server.setup.learned, server.rounds.weights):
            assert (set(small_bundle.head) <= set(names)) == bool(weight)
            assert set(small_bundle.head).isdisjoint(names) == (not weight)


def test_a_device_that_does_not_know_of_it_is_refused(small_bundle: Bundle) -> None:
    server = service(small_bundle, local=LocalLoss(0.5))
    asked = greeting(server, "a")
    older = asked._replace(header={name: value for name, value in asked.header.items() if name != "local"})
    refused = server.handle(older)
    assert refused.kind == "error" and "a's version of edgekit does not know: update it there" in str(refused.header)
    assert service(small_bundle).handle(older).kind == "welcome"


def test_the_gradient_is_sent_for_some_steps(make: Callable[..., Service]) -> None:
    server = make()
    server.steps.setup = server.setup._replace(local_loss=LocalLoss(0.5, 3))
    session = hello(server)
    replies = [server.handle(feature(session, step)) for step in range(7)]
    assert [bool(reply.parts[0]) for reply in replies] == [True, False, False, True, False, False, True]
    assert [reply.header.get("lo", False) for reply in replies] == [False, True, True, False, True, True, False]
    assert all(reply.header["lr"] == replies[0].header["lr"] > 0 for reply in replies)
