import numpy as np
import pytest

from edgekit.bundle import Bundle
from edgekit.codecs.gradients.raw import Raw
from edgekit.codecs.gradients.stochastic import Stochastic
from edgekit.errors import UnknownName, UsageError
from edgekit.server.calibrate import DEFAULT, POLICIES, Calibrator, calibrator, default_policy

GRADIENT = np.random.default_rng(0).normal(size=(4, 8, 3, 3)).astype(np.float32)
ACTIVE = np.random.default_rng(1).random(GRADIENT.shape) > 0.5


def send(policy: str, seed: int = 0, session: int = 1, step: int = 0) -> tuple[bytes, float]:
    chosen = calibrator(policy, seed)
    return chosen.send(GRADIENT, ACTIVE if chosen.masked else None, session, step)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_deviation_is_that_of_the_gradient_which_arrives(policy: str) -> None:
    payload, deviation = send(policy)
    chosen = calibrator(policy, 0)
    arrives = chosen.codec.unpack(payload, GRADIENT.shape, ACTIVE if chosen.masked else None)
    expected = np.linalg.norm(GRADIENT - arrives) / np.linalg.norm(GRADIENT)
    assert deviation == pytest.approx(float(expected), rel=1e-5)


def test_policies_cost_and_deviate_as_they_should() -> None:
    size = {policy: len(send(policy)[0]) for policy in POLICIES}
    deviation = {policy: send(policy)[1] for policy in POLICIES}
    assert deviation["none"] == 0 < deviation["stochastic"] < deviation["ternary"]
    assert deviation["masked"] == pytest.approx(float(np.linalg.norm(GRADIENT[~ACTIVE]) / np.linalg.norm(GRADIENT)))
    assert size["none"] == 4 * GRADIENT.size > size["masked"] > size["stochastic"] > size["ternary"]
    assert size["stochastic"] > size["stochastic-masked"] and size["ternary"] > size["ternary-masked"]


def test_sparse_gradients_cost_least() -> None:
    heavy = np.random.default_rng(2).laplace(size=(16, 32, 8, 8)).astype(np.float32) ** 3
    active = np.random.default_rng(1).random(heavy.shape) > 0.4
    chosen = [calibrator(policy, 0) for policy in ("ternary", "sparse", "sparse-masked", "sparse-masked:step=20")]
    sent = [each.send(heavy, active if each.masked else None, 1, 0) for each in chosen]
    sizes = [len(payload) for payload, _ in sent]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 3 * sizes[1]
    assert sent[1][1] < sent[2][1] < sent[3][1], "deviation"


def test_a_policy_takes_settings() -> None:
    chosen = calibrator("sparse-masked:step=14,of=largest", 0)
    assert chosen.masked and chosen.codec.config == {"step": 14, "coarse": 2, "of": "largest"}
    with pytest.raises(UsageError, match="setting of gradient codec 'sparse' 'bits': it takes step, coarse, of"):
        calibrator("sparse:bits=4", 0)
    with pytest.raises(UsageError, match="takes a step"):
        calibrator("sparse:step=ten", 0)


def test_draws_follow_from_seed_session_and_step() -> None:
    assert send("ternary") == send("ternary")
    draws = {send("ternary")[0], *(send("ternary", **{key: 7})[0] for key in ("seed", "session", "step"))}
    assert len(draws) == 4


def test_a_zero_gradient_arrives_whole() -> None:
    for codec in (Raw(), Stochastic()):
        assert Calibrator(codec, False, 0).send(np.zeros_like(GRADIENT), None, 1, 0)[1] == 0


def test_an_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean ternary"):
        calibrator("ternari", 0)


def test_the_default_is_dct_but_for_raw_features(any_bundle: Bundle) -> None:
    policy = default_policy(any_bundle)
    assert policy == ("none" if any_bundle.codec.codec_id == "raw" else DEFAULT)
    assert not calibrator(policy, 0).masked and (calibrator(DEFAULT, 0).bound or 0) > 0
