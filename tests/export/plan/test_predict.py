"""The plan's parts by hand: roofline, step, frames; then a whole one, and its picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.device_profiles.profile import Hardware, Profile, Target
from edgekit.errors import UsageError
from edgekit.export.frames import frames, quick_tables
from edgekit.export.plan.chart import MOST, draw
from edgekit.export.plan.cuts import cut_table
from edgekit.export.plan.named import plan_named
from edgekit.export.plan.observe import Trial, observe, sample_images
from edgekit.export.plan.predict import Prediction, Step, binding, predict, rate
from edgekit.export.plan.roofline import encode_seconds, encoder_work, training_bytes, training_seconds
from edgekit.export.plan.settings import Compared, PlannedStep
from edgekit.export.plan.work import Work
from edgekit.export.settings import NamedNetwork
from edgekit.link.link import Link

LINK = Link(10e6, 10e6, 0.02)


def board(precision: str = "float32", norm: str = "batch", memory_gib: float = 4.0) -> Profile:
    """100 GFLOP/s on the engine, 10 on the CPU, 1 GB/s."""
    target = Target(
        opset=11, ir_version=7, static=True, rules=(), operators=(), precision=precision, norm=norm, scores="conv",
        codebooks="inputs", weights="session",
    )  # fmt: skip
    hardware = Hardware(memory_gib=memory_gib, bandwidth_gb_s=1.0, peak_gflops=100.0, cpu_cores=4, cpu_gflops=10.0)
    return Profile("board", "a board", "onnxruntime", "3.6", {}, target, hardware, ())


def work(operator: str, flops: int, moved: int, gradients: int, joins: bool = False) -> Work:
    return Work((), (1, 1, 1), operator, False, joins, flops, moved, 0, {operator: 10}, gradients)


def test_encoding_is_bound_by_flops_or_by_memory() -> None:
    front = [work("convolution", 10**9, 10**6, 1), work("add", 10**3, 10**7, 2), work("relu", 10**12, 10**12, 1, True)]
    # 1e9 / 100e9 s; 1e7 / 1e9 s; joined, nothing.
    assert encode_seconds(front, board()) == pytest.approx(0.01 + 0.01)
    assert encode_seconds(front, board("float16")) == pytest.approx(0.01 + 0.005)


def test_training_adds_the_gradients_and_leaves_out_folded_norms() -> None:
    front = [
        work("convolution", 10**8, 0, 1),
        work("native_batch_norm", 10**3, 10**7, 2, True),
        work("relu", 0, 10**7, 1, True),
    ]
    # On the CPU: 1e8 / 10e9 s, twice; 1e7 / 1e9 s, three times; the same twice.
    assert training_seconds(front, board("float16")) == pytest.approx(0.02 + 0.03 + 0.02)
    assert training_seconds(front, board(norm="frozen")) == pytest.approx(0.02 + 0.02)
    # 30 weights, their gradients and momentum; nothing was written.
    assert training_bytes(front) == 4 * 3 * 30


def test_quantise_stage_by_hand() -> None:
    sgq = encoder_work(feature_codec("sgq", {"groups": 4, "bits": 4}), (8, 3, 3), 2)
    positions = 2 * 9
    assert sgq.flops == 2 * positions * 8 * 16 + positions * 4 * 16
    assert sgq.bytes_written == 4 * (positions * 4 * 16 + positions * 4)
    assert encoder_work(feature_codec("raw", {}), (8, 3, 3), 2).flops == 0
    assert encoder_work(feature_codec("uniform", {}), (8, 3, 3), 2).flops == 5 * positions * 8
    assert sgq.gradients == 0 and not sgq.joins


def test_rate_and_what_binds() -> None:
    step = Step(device=0.1, uplink=0.2, downlink=0.05, latency=0.02, server=0.13)
    assert rate(step, 32, 1) == pytest.approx(32 / 0.5) and binding(step, 1) == "uplink"
    assert rate(step, 32, 3) == pytest.approx(3 * 32 / 0.5) and binding(step, 3) == "uplink"
    # Four devices ask for 0.52 s of the server in every 0.5 s.
    assert rate(step, 32, 4) == pytest.approx(32 / 0.13) and binding(step, 4) == "server"


@pytest.mark.parametrize(
    ("codec", "config"),
    [
        ("raw", {}),
        ("uniform", {"bits": 4}),
        ("sgq", {"groups": 4, "bits": 4}),
        ("product", {"groups": 4, "bits": 4}),
        ("slicing", {"bits": 4}),
        ("topk", {"bits": 4}),
    ],
)
def test_frames_are_codes_labels_and_little_else(codec: str, config: dict[str, int], rng: np.random.Generator) -> None:
    coder = feature_codec(codec, config)
    feature = np.maximum(rng.standard_normal((8, 16, 5, 5), dtype=np.float32), 0)
    tables = quick_tables(coder, feature, 0)
    coder.check_tables(16, tables)
    sent = frames(coder, tables, feature, 10, 0)
    formula = 8 * coder.formula_bits((16, 5, 5)) / 8
    # Frame and part headers, a JSON header, a byte per label, and of the codec at most its range.
    assert formula < sent.frame_up - 8 < formula + 80
    decoded = sent.decode()
    order = coder.order(16, tables)
    coded = coder.dequantize(coder.quantize(feature[:, order], tables), tables)
    np.testing.assert_array_equal(decoded[:, order], coded)
    many = frames(coder, tables, feature, 300, 0)
    assert many.frame_up == sent.frame_up + 8, "labels of more than 256 classes take two bytes"
    # A raw feature comes back with a raw gradient, others with one by dct.
    assert many.frame_down == sent.frame_down
    assert (sent.frame_down > feature.nbytes) == (codec == "raw")
    assert sent.gradient_codec.codec_id == ("raw" if codec == "raw" else "dct")


class Small(nn.Module):
    """16x16 image -> 8x16x16 at "relu" -> 8x8x8 at "pool"."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.flatten(self.pool(self.relu(self.bn(self.conv(x))))))
        return y


@pytest.mark.parametrize("norm", [None, "batch", "frozen"])
def test_cuts_are_observed_and_predicted(norm: str | None) -> None:
    network = Small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    codec = feature_codec("sgq", {"groups": 4})
    table = cut_table(network, (1, 16, 16), codec)
    seen: list[str] = []
    trial = Trial(sample_images((1, 16, 16), 4, 0, None), 10, codec, norm=norm or "batch", measure=norm is not None)
    observed, refused = observe(network, [cut for cut in table if cut.layer != "conv"], trial, seen.append)
    assert seen == ["bn", "relu", "pool", "flatten"] and list(refused) == ["flatten"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [(one.front_time is None) for one in observed] == [norm is None] * 3
    predictions = predict(observed, board(), LINK, 2)
    speeds = [one.images_per_s for one in predictions]
    assert speeds == sorted(speeds, reverse=True) and min(speeds) > 0
    cuts = {one.cut.layer: one for one in predictions}
    assert cuts["relu"].step.uplink == pytest.approx(8 * 4 * cuts["relu"].bytes_up / 10e6)
    assert cuts["relu"].step.latency == 0.02
    assert cuts["pool"].bytes_up < cuts["relu"].bytes_up
    assert cuts["pool"].bytes_down < cuts["relu"].bytes_down == cuts["bn"].bytes_down
    assert cuts["relu"].formula_bytes_up == 4 * 4 * 256 / 8 < cuts["relu"].bytes_up
    for one in predictions:
        assert one.images_per_s == pytest.approx(rate(one.step, 4, 2))
        slowest = max(one.encode_s, one.step.uplink)
        assert one.encoded_images_per_s == pytest.approx(2 * 4 / slowest) and one.fits
    json.dumps([one.to_json() for one in predictions])


def test_jitter_and_stalls_count_on_the_mean() -> None:
    network, codec = Small(), feature_codec("raw", {})
    cuts = cut_table(network, (1, 16, 16), codec)[2:3]
    observed, _ = observe(network, cuts, Trial(sample_images((1, 16, 16), 4, 0, None), 10, codec))
    (plain,) = predict(observed, board(), LINK, 1)
    (worse,) = predict(observed, board(), LINK._replace(jitter_s=0.01, stall_s=1.0, stall_every_s=5.0), 1)
    assert worse.step.uplink == pytest.approx(plain.step.uplink / 0.8)
    assert worse.step.downlink == pytest.approx(plain.step.downlink / 0.8)
    assert worse.step.latency == pytest.approx((0.02 + 2 * 0.005) / 0.8)


def test_front_that_does_not_fit_the_board() -> None:
    network, codec = Small(), feature_codec("raw", {})
    cuts = cut_table(network, (1, 16, 16), codec)[2:3]
    observed, _ = observe(network, cuts, Trial(sample_images((1, 16, 16), 4, 0, None), 10, codec))
    (one,) = predict(observed, board(memory_gib=1e-5), LINK, 1)
    # 72 + 16 weights three times, and the outputs of convolution, batch norm and ReLU.
    assert one.memory_bytes == 4 * (3 * 88 + 3 * 4 * 8 * 256) and not one.fits


def test_images_of_a_dataset_are_normalised(digits: Dataset) -> None:
    images = sample_images((3, 20, 20), 64, 0, digits)
    assert images.shape == (64, 3, 20, 20) and images.dtype == np.float32
    assert abs(float(images.mean())) < 1e-3 and abs(float(images.std()) - 1) < 1e-3
    np.testing.assert_array_equal(images, sample_images((3, 20, 20), 64, 0, digits))
    with pytest.raises(UsageError, match="a batch of 1 images: expected at least 2"):
        sample_images((1, 16, 16), 1, 0, digits)
    with pytest.raises(UsageError, match=r"digits has \d+ training images, a batch of 100000 was asked"):
        sample_images((1, 16, 16), 100000, 0, digits)


def test_plan_of_a_named_model() -> None:
    told: list[tuple[int, int, str]] = []
    result = plan_named(
        NamedNetwork("mobilenet_v1", cut="stem", input_shape="3,16,16"),
        PlannedStep("jetson-nano", "2mbit/10mbit+30ms", feature_codec("uniform", {"bits": 4}), batch=2),
        Compared(["stem", "blocks.3.depthwise", "flatten"]),
        on_cut=lambda *now: told.append(now),
    )
    assert told == [(0, 3, "stem"), (1, 3, "blocks.3.depthwise"), (2, 3, "flatten")]
    assert {one.cut.layer for one in result.predictions} == {"stem", "blocks.3.depthwise"}
    assert result.default == "stem"
    record = json.loads(json.dumps(result.to_json()))
    assert record["link"] == Link(2e6, 1e7, 0.03)._asdict()
    assert record["images"] == "2 random normal images" and "roofline" in record["device_time"]
    assert list(record["refused"]) == ["flatten"]


def test_picture(tmp_path: Path) -> None:
    network, codec = Small(), feature_codec("raw", {})
    observed, _ = observe(
        network, cut_table(network, (1, 16, 16), codec)[:1], Trial(sample_images((1, 16, 16), 2, 0, None), 10, codec)
    )
    many: list[Prediction] = predict(observed * (MOST + 5), board(), LINK, 1)
    for name, predictions in (("one", many[:1]), ("many", many), ("none", [])):
        draw(str(tmp_path / name), predictions, "a title")
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
