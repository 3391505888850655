"""Noise in the place of what quantising lost: how long it is, when it is added, and what devices have to tell."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from edgekit.codecs.features.product import Product
from edgekit.codecs.features.uniform import Uniform
from edgekit.errors import PayloadError, UsageError
from edgekit.line.frame import Message
from edgekit.line.messages import MOST_MISSING, Feature
from edgekit.server.noise_filling import NoiseFilling, fill, noise_filling
from edgekit.server.service import Service
from tests.server.talk import CODEC, feature, greeting, hello, refusal

LOST = NoiseFilling()


@pytest.mark.parametrize("missing", [0.2, 0.75])
def test_a_filled_feature_varies_as_much_as_before(missing: float) -> None:
    drawn = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    feature = drawn * torch.tensor([0.1, 1, 7])[:, None, None] + 5
    kept = feature.clone()
    noisy = fill(feature, missing, (0, 1, 2))
    assert torch.equal(feature, kept)
    variance, before = (each.var((0, 2, 3)) for each in (noisy, feature))
    torch.testing.assert_close(variance, before / (1 - missing), rtol=0.05, atol=0)
    # Of mean 0, and of its own: 16,384 values a channel.
    assert ((noisy - feature).mean((0, 2, 3)).abs() < 4 * (variance / 16384) ** 0.5).all()
    along = ((noisy - feature) * (feature - 5)).mean((0, 2, 3)) / (variance * before) ** 0.5
    assert (along.abs() < 4 / 128).all()


def test_noise_follows_from_its_seed() -> None:
    feature = torch.randn(2, 3, 4, 4)
    assert torch.equal(fill(feature, 0.0, (0, 1, 2)), feature)
    first, again, *others = (
        fill(feature, 0.5, seed) for seed in ((0, 1, 2), (0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3))
    )
    assert torch.equal(first, again) and not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(("steps", "last"), [(1, 0), (10, 8), (1000, 899)])
def test_the_last_tenth_of_the_run_has_no_noise(steps: int, last: int) -> None:
    given = torch.randn(2, 3, 4, 4)

    def noisy(step: int) -> bool:
        message = Feature(1, step, 0, 2, b"", b"", 0.5)
        return not torch.equal(LOST.apply(given, message, 1, step / steps), given)

    assert [step for step in range(steps + 1) if noisy(step)] == list(range(last + 1))


def test_what_the_option_says() -> None:
    assert noise_filling(None, CODEC, 3) is None
    assert noise_filling("lost", CODEC, 3) == NoiseFilling(None, 3)
    assert noise_filling("lost", Product(), 3) == NoiseFilling(None, 3)
    assert noise_filling("0.48", Uniform(), 0) == NoiseFilling(0.48, 0)
    with pytest.raises(UsageError, match="codec 'uniform' has no codebooks"):
        noise_filling("lost", Uniform(), 0)
    for wrong in ("0", "0.91", "nan", "much", "-1"):
        with pytest.raises(UsageError, match=r"expected 'lost', or a share above 0 and up to 0\.9"):
            noise_filling(wrong, CODEC, 0)


class TestService:
    """A server that trains on noise."""

    @pytest.fixture(autouse=True)
    def standing_still(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Losses are compared: nothing is learned."""
        monkeypatch.setattr("edgekit.server.handlers.training.learning_rate", lambda *given: 0.0)

    def told(self, session: int, step: int, missing: Any) -> Message:
        message = feature(session, step)
        return message._replace(header={**message.header, "d": missing})

    def loss(self, service: Service, session: int, step: int, missing: float) -> float:
        reply = service.handle(self.told(session, step, missing))
        assert reply.kind == "gradient"
        return float(reply.header["loss"])

    def test_welcome_asks_for_what_was_lost(self, make: Callable[..., Service]) -> None:
        asked = []
        for noise in (None, LOST, NoiseFilling(0.3)):
            service = make(noise=noise)
            asked.append(service.handle(greeting(service, "a")).header.get("noise_filling"))
        assert asked == [None, True, None]

    def test_it_trains_on_the_share_that_the_device_tells(self, make: Callable[..., Service]) -> None:
        losses = []
        for noise, missing in ((None, 0.5), (LOST, 0.0), (LOST, 0.5), (LOST, MOST_MISSING)):
            service = make(noise=noise)
            losses.append(self.loss(service, hello(service), 0, missing))
        # The last tenth of the run has none.
        session = hello(service := make(noise=LOST), steps=11)
        *early, late = (self.loss(service, session, step, 0.5) for step in range(11))
        plain, none, half, most = losses
        assert plain == none == late and len({none, half, most}) == 3 and plain not in early

    def test_a_share_that_is_named_needs_no_telling(self, make: Callable[..., Service]) -> None:
        service, told = make(noise=NoiseFilling(0.5)), make(noise=LOST)
        reply = service.handle(feature(hello(service), 0))
        assert reply.header["loss"] == self.loss(told, hello(told), 0, 0.5)

    def test_every_step_of_every_device_has_its_own_noise(self, make: Callable[..., Service]) -> None:
        services = [make(noise=LOST), make(noise=LOST)]
        found = [
            [self.loss(service, session, step, 0.5) for session in (hello(service), hello(service)) for step in (0, 1)]
            for service in services
        ]
        assert found[0] == found[1] and len(set(found[0])) == 4

    def test_evaluation_is_of_what_arrives(self, make: Callable[..., Service]) -> None:
        results = []
        for noise in (None, LOST):
            service = make(noise=noise)
            reply = service.handle(feature(hello(service), 0, kind="evaluate"))
            results.append((reply.kind, reply.header["loss"]))
        assert results[0] == results[1] and results[0][0] == "result"

    @pytest.mark.parametrize("wrong", [None, -0.01, 0.95, True, "0.5", float("nan")])
    def test_another_share_moves_nothing(self, make: Callable[..., Service], wrong: Any) -> None:
        refused, other = make(noise=LOST), make(noise=LOST)
        session = hello(refused)
        for each in (session, hello(refused, steps=0)):
            assert "'missing'" in refusal(refused, self.told(each, 0, wrong), PayloadError.exit_code)
        assert "'missing' is absent" in refusal(refused, feature(session, 0), PayloadError.exit_code)
        assert self.loss(refused, session, 0, 0.5) == self.loss(other, hello(other), 0, 0.5)
