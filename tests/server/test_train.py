import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from edgekit.errors import BundleError, Diverged, Refused, UnknownName, UsageError
from edgekit.server.train import BackHalf, OptimizerConfig, Part, torch_device

CPU = torch.device("cpu")
SGD = OptimizerConfig("sgd", 0.05, 0.9, 1e-3)
ORDER = np.array([3, 1, 0, 2, 7, 6, 5, 4])
PLAIN = np.arange(8)


def half(archives: Any, device: torch.device = CPU, config: OptimizerConfig = SGD) -> BackHalf:
    train, evaluation, state = archives
    return BackHalf.from_programs(train, evaluation, state, device, config)


def batch(n: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    feature = torch.from_numpy(rng.normal(size=(n, 8, 4, 4)).astype(np.float32))
    return feature, rng.integers(0, 3, n).astype(np.uint8)


@pytest.mark.parametrize("config", [SGD, OptimizerConfig("adam", 0.01, 0.9, 1e-3)], ids=["sgd", "adam"])
def test_training_equals_eager_training_of_the_same_network(
    archives: Any, make_back: Callable[..., nn.Module], config: OptimizerConfig
) -> None:
    back = half(archives, config=config)
    eager = make_back().train()
    eager.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in archives[2].items()})
    kind: Any = torch.optim.SGD if config.name == "sgd" else torch.optim.Adam
    momentum = {"momentum": config.momentum} if config.name == "sgd" else {}
    optimizer = kind(eager.parameters(), config.lr, weight_decay=config.weight_decay, **momentum)
    assert config.lr is not None
    for step, n in enumerate((2, 3, 7)):
        coded, labels = batch(n, step)
        rate = config.lr / (step + 1)
        leaf = coded.clone().requires_grad_()
        logits = eager(leaf[:, np.argsort(ORDER)])
        expected = cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)))
        optimizer.zero_grad()
        expected.backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        ((loss, right, gradient),) = back.step([Part(coded, ORDER, labels)], rate)
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert right == int((logits.argmax(1).numpy() == labels).sum())
        assert leaf.grad is not None and gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), atol=1e-6)
    for name, tensor in eager.state_dict().items():
        np.testing.assert_allclose(back.state_dict()[name], tensor.numpy(), atol=1e-5, err_msg=name)
    coded, labels = batch(5, 9)
    with torch.no_grad():
        logits = eager.eval()(coded[:, np.argsort(ORDER)])
    expected = cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)))
    loss, predicted = back.evaluate(coded, ORDER, labels)
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    assert predicted.dtype == np.int64 and np.array_equal(predicted, logits.argmax(1).numpy())


class Strided(nn.Module):
    """Feature (n,8,4,4) -> logits (n,3), through a view and through strides, both of a tensor as it lies in memory."""

    def __init__(self, look: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body = nn.Conv2d(8, 6, 3, padding=1)
        self.linear = nn.Linear(96, 3)
        self.look = look

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(self.look(self.body(feature)))
        return logits


@pytest.mark.parametrize(
    "look",
    [lambda x: x.view(-1, 96), lambda x: torch.as_strided(x, (x.shape[0], 96), (96, 1))],
    ids=["view", "strides"],
)
def test_a_network_may_look_at_how_a_tensor_lies_in_memory(
    make_archive: Callable[..., bytes], look: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    torch.manual_seed(0)
    network = Strided(look)
    state = {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}
    back = half((make_archive(network, True), make_archive(network, False), state))
    coded, labels = batch(5, 0)
    expected = cross_entropy(network(coded), torch.from_numpy(labels.astype(np.int64)))
    assert back.evaluate(coded, PLAIN, labels)[0] == pytest.approx(expected.item(), rel=1e-5)
    assert back.step([Part(coded, PLAIN, labels)], 0.1)[0].loss == pytest.approx(expected.item(), rel=1e-5)


def test_parts_are_one_batch_to_the_back_half(archives: Any) -> None:
    joint, whole = half(archives), half(archives)
    orders = (ORDER, PLAIN, ORDER[::-1].copy())
    for step, sizes in enumerate([(3, 5, 1), (1, 4, 2)]):
        coded, labels = batch(sum(sizes), step)
        ends = np.cumsum(sizes)
        rows = [slice(end - n, end) for end, n in zip(ends, sizes, strict=True)]
        parts = [Part(coded[row][:, order], order, labels[row]) for row, order in zip(rows, orders, strict=True)]
        outcomes = joint.step(parts, 0.05)
        ((loss, right, gradient),) = whole.step([Part(coded, PLAIN, labels)], 0.05)
        assert sum(n * each.loss for n, each in zip(sizes, outcomes, strict=True)) / sum(sizes) == pytest.approx(loss)
        assert sum(each.right for each in outcomes) == right
        for row, order, n, each in zip(rows, orders, sizes, outcomes, strict=True):
            expected = gradient[row][:, order] * (sum(sizes) / n)
            np.testing.assert_allclose(each.gradient, expected, rtol=1e-5, atol=1e-7)
            assert each.gradient.dtype == np.float32
    for name, array in whole.state_dict().items():
        np.testing.assert_allclose(joint.state_dict()[name], array, rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_loss_of_a_part_is_that_of_its_images_alone(archives: Any) -> None:
    back = half(archives)
    coded, labels = batch(6, 0)
    outcomes = back.step([Part(coded[:2], PLAIN, labels[:2]), Part(coded[2:], PLAIN, labels[2:])], 0.0)
    swapped = half(archives).step([Part(coded[2:], PLAIN, labels[2:]), Part(coded[:2], PLAIN, labels[:2])], 0.0)
    assert outcomes[0].loss == pytest.approx(swapped[1].loss) != pytest.approx(outcomes[1].loss)
    assert [each.right for each in outcomes] == [each.right for each in reversed(swapped)]


def test_the_same_parts_in_the_same_order_give_the_same_bits(archives: Any) -> None:
    runs = []
    for _ in range(2):
        back, told = half(archives), []
        for step in range(3):
            parts = [Part(coded, ORDER, labels) for coded, labels in (batch(n, step + n) for n in (4, 2, 3))]
            told += [(each.loss, each.right, each.gradient.tobytes()) for each in back.step(parts, 0.05)]
        runs.append((told, {name: array.tobytes() for name, array in back.state_dict().items()}))
    assert runs[0] == runs[1]


def test_a_part_without_images_and_no_part_are_refused(archives: Any) -> None:
    back = half(archives)
    coded, labels = batch(4, 0)
    with pytest.raises(Refused, match=r"batches of \[4, 0\] images"):
        back.step([Part(coded, PLAIN, labels), Part(coded[:0], PLAIN, labels[:0])], 0.1)
    with pytest.raises(Refused, match="got 0"):
        back.step([], 0.1)
    assert all(np.array_equal(back.state_dict()[name], array) for name, array in archives[2].items())


def test_one_image_is_enough_where_others_join(archives: Any) -> None:
    coded, labels = batch(2, 0)
    parts = [Part(coded[:1], PLAIN, labels[:1]), Part(coded[1:], PLAIN, labels[1:])]
    assert len(half(archives).step(parts, 0.1)) == 2


def test_training_moves_weights_and_statistics_that_evaluation_uses(archives: Any) -> None:
    back = half(archives)
    coded, labels = batch(16, 0)
    before, state = back.evaluate(coded, PLAIN, labels), back.state_dict()
    assert all(np.array_equal(state[name], array) for name, array in archives[2].items()), "evaluation changed nothing"
    losses = [back.step([Part(coded, PLAIN, labels)], 0.05)[0].loss for _ in range(40)]
    after = back.evaluate(coded, PLAIN, labels)
    assert losses[-1] < 0.5 * losses[0] and after[0] < 0.7 * before[0]
    moved = back.state_dict()
    assert all(not np.array_equal(moved[name], array) for name, array in state.items()), "every entry moved"
    assert moved["norm.num_batches_tracked"] == 40


def test_the_feature_given_is_not_overwritten_by_an_in_place_layer(archives: Any) -> None:
    back = half(archives)
    coded, labels = batch(4, 0)
    kept = coded.clone()
    back.step([Part(coded, PLAIN, labels)], 0.1)
    back.evaluate(coded, PLAIN, labels)
    assert torch.equal(coded, kept)


def test_dropout_acts_in_training_only(make_back: Any, make_archive: Any) -> None:
    module = make_back(dropout=0.5)
    state = {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}
    back = BackHalf.from_programs(make_archive(module, True), make_archive(module, False), state, CPU, SGD)
    coded, labels = batch(8, 0)
    assert len({back.step([Part(coded, PLAIN, labels)], 0.0)[0].loss for _ in range(4)}) > 1
    assert len({back.evaluate(coded, PLAIN, labels)[0] for _ in range(4)}) == 1


def test_a_batch_of_one_is_refused_in_training_and_leaves_the_statistics_alone(archives: Any) -> None:
    back = half(archives)
    coded, labels = batch(1, 0)
    with pytest.raises(Refused, match="takes 2 to 65536 images at a time, got 1"):
        back.step([Part(coded, PLAIN, labels)], 0.1)
    assert all(np.array_equal(back.state_dict()[name], array) for name, array in archives[2].items())
    assert np.isfinite(back.evaluate(coded, PLAIN, labels)[0])


def test_divergence_is_told_and_leaves_the_weights_alone(archives: Any) -> None:
    back = half(archives)
    coded, labels = batch(4, 0)
    with pytest.raises(Diverged, match="lower --lr"):
        back.step([Part(coded * float("nan"), PLAIN, labels)], 0.1)
    assert np.array_equal(back.state_dict()["linear.weight"], archives[2]["linear.weight"])
    with pytest.raises(Diverged, match="lower --lr"):
        back.evaluate(coded * float("nan"), PLAIN, labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("linear.bias"),
        lambda state: state.update({"linear.extra": np.zeros(1, np.float32)}),
        lambda state: state.update({"linear.bias": np.zeros(4, np.float32)}),
        lambda state: state.update({"linear.bias": np.zeros(3, np.float64)}),
    ],
    ids=["missing", "extra", "shape", "dtype"],
)
def test_weights_that_do_not_fit_the_program_are_named(archives: Any, change: Callable[[Any], Any]) -> None:
    state = dict(archives[2])
    change(state)
    with pytest.raises(BundleError, match=r"back_train\.pt2.*linear\.(bias|extra)"):
        BackHalf.from_programs(archives[0], archives[1], state, CPU, SGD)


def test_the_evaluation_program_must_be_of_the_same_network(archives: Any, make_archive: Any) -> None:
    with pytest.raises(BundleError, match=r"back_eval\.pt2"):
        BackHalf.from_programs(archives[0], make_archive(nn.Conv2d(8, 3, 4), False), archives[2], CPU, SGD)


def test_a_program_of_one_batch_size_is_refused(archives: Any, make_back: Any) -> None:
    file = io.BytesIO()
    torch.export.save(torch.export.export(make_back().train(), (torch.zeros(2, 8, 4, 4),)), file)
    with pytest.raises(BundleError, match="exactly 2 images"):
        BackHalf.from_programs(file.getvalue(), archives[1], archives[2], CPU, SGD)


def test_an_unbounded_dynamic_batch_is_taken(archives: Any, make_back: Any) -> None:
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(make_back().train(), (torch.zeros(2, 8, 4, 4),), dynamic_shapes=dynamic)
    file = io.BytesIO()
    torch.export.save(program, file)
    back = BackHalf.from_programs(file.getvalue(), archives[1], archives[2], CPU, SGD)
    coded, labels = batch(6, 0)
    assert np.isfinite(back.step([Part(coded, PLAIN, labels)], 0.1)[0].loss)


def test_an_unknown_optimizer_is_refused(archives: Any) -> None:
    with pytest.raises(UnknownName, match="adam, sgd"):
        half(archives, config=OptimizerConfig("sdg"))


def test_a_rate_is_meant_for_the_images_of_one_device() -> None:
    config = OptimizerConfig("sgd", 0.1)
    assert [config.rate(images, 16) for images in (8, 16, 64)] == pytest.approx([0.1, 0.1, 0.2])


def test_the_usual_rate_is_in_proportion_for_small_steps_and_grows_by_the_root_for_joint_ones() -> None:
    usual = OptimizerConfig()
    assert [usual.rate(images, images) for images in (16, 32, 64)] == pytest.approx([0.025, 0.05, 0.05])
    # Two devices with batches of 16, and 16 of them, whose steps are on 64 images.
    assert [usual.rate(images, 16) for images in (32, 64)] == pytest.approx([0.05, 0.05 * 2**0.5])
    # Two with batches of 64.
    assert usual.rate(128, 64) == pytest.approx(0.05 * 2**0.5)
    assert OptimizerConfig("adam").rate(32, 32) == pytest.approx(0.001)


def test_torch_device() -> None:
    assert torch_device("cpu") == CPU
    assert torch_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UnknownName, match="auto, cpu, cuda"):
        torch_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="sees no CUDA device"):
        torch_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_trains_as_the_cpu_does(archives: Any) -> None:
    backs = [half(archives, device) for device in (CPU, torch.device("cuda"))]
    coded, labels = batch(8, 0)
    for _ in range(3):
        ((loss, _, gradient),), ((expected, _, reference),) = (
            back.step([Part(coded.to(back.device), ORDER, labels)], 0.05) for back in reversed(backs)
        )
        assert loss == pytest.approx(expected, rel=1e-3)
        np.testing.assert_allclose(gradient, reference, atol=1e-4)


def calm_steps(back: BackHalf, steps: int) -> None:
    for step in range(steps):
        coded, labels = batch(16, step)
        back.step([Part(coded, PLAIN, labels)], 0.01)


def test_a_wild_batch_is_undone_and_healthy_training_goes_on_as_if_it_had_not_been(archives: Any) -> None:
    back, without = half(archives), half(archives)
    for each in (back, without):
        calm_steps(each, 12)
    coded, labels = batch(8, 99)
    parts = [Part(coded, PLAIN, labels), Part(coded * 1e4, PLAIN, labels)]
    outcomes = back.step(parts, 0.01)
    assert [each.gradient.shape for each in outcomes] == [(8, 8, 4, 4)] * 2
    assert not any(each.gradient.any() for each in outcomes) and all(np.isfinite(each.loss) for each in outcomes)
    assert back.guards.undone == 1 and without.guards.undone == 0
    for each in (back, without):
        calm_steps(each, 3)
    for name, array in without.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], array, err_msg=name)


def test_training_from_fresh_weights_is_not_touched(archives: Any) -> None:
    back = half(archives)
    for step in range(60):
        coded, labels = batch(16, step % 4)
        back.step([Part(coded[:6], PLAIN, labels[:6]), Part(coded[6:], ORDER, labels[6:])], 0.05)
    assert (back.guards.clipped_steps, back.guards.clipped_parts, back.guards.undone) == (0, 0, 0)


def test_a_wild_gradient_is_shortened_for_weights_and_device(archives: Any) -> None:
    back = half(archives)
    calm_steps(back, 12)
    back.guards.weights.recent = back.guards.weights.highest = 1e-3
    back.guards.parts.recent = back.guards.parts.highest = 1e-3
    before = back.state_dict()
    coded, labels = batch(16, 99)
    (outcome,) = back.step([Part(coded, PLAIN, labels)], 0.01)
    assert (back.guards.clipped_steps, back.guards.clipped_parts) == (1, 1)
    assert np.linalg.norm(outcome.gradient) * 4 == pytest.approx(4e-3, rel=1e-4)
    assert np.abs(back.state_dict()["linear.weight"] - before["linear.weight"]).max() > 0
