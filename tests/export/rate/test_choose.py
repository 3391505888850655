"""Rate control: what is chosen keeps the goal by its rule, and nothing is chosen where it could not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.bundle import Bundle, open_bundle
from edgekit.codecs.base import FeatureCodec
from edgekit.codecs.features.raw import Raw
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.data.base import Dataset
from edgekit.errors import UsageError
from edgekit.export.build import build_bundle
from edgekit.export.rate.candidates import ZONES
from edgekit.export.rate.choose import BITS, UPLINK_SHARE, Goal, candidates
from edgekit.export.rate.rounds import RoundPlan
from edgekit.export.settings import CalibrationImages, Coding, Network
from edgekit.server.calibrate import calibrator, default_policy

#: Bytes that leave something to be chosen.
TARGET = 40.0
CONTEXT = SGQ(coding="context")
#: Without 8 bits, whose k-means takes most of the time: among the others the same rules choose.
FEWER = BITS[:-1]


@pytest.fixture(scope="module", autouse=True)
def fewer_candidates() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.export.rate.choose.BITS", FEWER)
        yield


def network(relu: bool = True) -> nn.Sequential:
    """16x16 grey image -> 8x8x8 at "1" -> 10 classes."""
    torch.manual_seed(0)
    front: list[nn.Module] = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)]
    front += [nn.ReLU()] if relu else []
    back = [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(nn.Sequential(*front), nn.Sequential(*back, nn.Linear(64, 10)))


def normalised(digits: Dataset, part: slice) -> torch.Tensor:
    scaled = digits.train_images[part].astype(np.float32) / 255
    return torch.from_numpy((scaled - np.float32(digits.mean[0])) / np.float32(digits.std[0]))


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Sequential:
    model = network()
    images, labels = normalised(digits, slice(None)), torch.from_numpy(digits.train_labels)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        chosen = torch.randint(len(images), (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return model.eval()


def export(
    path: Path, digits: Dataset, model: nn.Module, goal: Goal, codec: FeatureCodec = CONTEXT, images: int = 128
) -> Bundle:
    return build_bundle(
        str(path / "bundle"),
        Network(model, "small", "0"),
        CalibrationImages(digits.train_images[:images], digits.mean, digits.std, 10, digits.train_labels[:images]),
        Coding(codec, goal=goal),
    )


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    return export(tmp_path_factory.mktemp("rate"), digits, network(), Goal(target_bytes=TARGET))


def uplink(rate: dict[str, Any]) -> dict[str, Any]:
    (chosen,) = [up for up in rate["uplinks"] if (up["groups"], up["bits"]) == (rate["groups"], rate["bits"])]
    return dict(chosen)


def up_bytes(up: dict[str, Any]) -> float:
    return float(up["bytes"] + up["update_bytes"])


def test_target_keeps_its_rule(bounded: Bundle) -> None:
    rate = bounded.manifest["rate"]
    codec = bounded.codec
    assert isinstance(codec, SGQ) and codec.coding == "context"
    assert (codec.groups, codec.bits) == (rate["groups"], rate["bits"]) and bounded.gradient == rate["gradient"]
    chosen = uplink(rate)
    (down,) = [each for each in chosen["downlinks"] if each["policy"] == rate["gradient"]]
    assert rate["bytes"] == pytest.approx(up_bytes(chosen) + down["bytes"]) and rate["bytes"] <= TARGET
    assert up_bytes(chosen) <= UPLINK_SHARE * TARGET
    assert down["zone"] > ZONES[0]
    finer = [each for each in chosen["downlinks"] if each["zone"] < down["zone"]]
    assert all(up_bytes(chosen) + each["bytes"] > TARGET for each in finer)
    # Whatever has less error within the share leaves too little for every gradient.
    for up in rate["uplinks"]:
        if up["error"] < chosen["error"] and up_bytes(up) <= UPLINK_SHARE * TARGET:
            assert up["downlinks"] and all(up_bytes(up) + each["bytes"] > TARGET for each in up["downlinks"])
    assert rate["accuracy"] is None and all(up["accuracy"] is None for up in rate["uplinks"])


def test_measures_are_plausible(bounded: Bundle) -> None:
    rate = bounded.manifest["rate"]
    by = {(up["groups"], up["bits"]): up for up in rate["uplinks"]}
    assert rate["images"] == 64 and len(by) + rate["not_measured"] == 4 * len(FEWER) and rate["not_measured"]
    assert all(0 < up["error"] < 1 and up["bytes"] > 1 for up in by.values())
    # More bits: less error and more bytes.
    assert by[1, 2]["error"] > by[1, 4]["error"] > by[1, 6]["error"]
    assert by[1, 2]["bytes"] < by[1, 4]["bytes"] < by[1, 6]["bytes"]
    for up in by.values():
        if up["downlinks"]:
            sizes, apart = ([each[key] for each in up["downlinks"]] for key in ("bytes", "deviation"))
            assert sizes == sorted(sizes, reverse=True) and apart == sorted(apart)


def test_policy_is_what_was_measured(bounded: Bundle, digits: Dataset, tmp_path: Path) -> None:
    assert bounded.gradient is not None and bounded.after_relu
    chosen = calibrator(bounded.gradient, 0)
    assert not chosen.masked and chosen.codec.codec_id == "dct"
    assert default_policy(bounded) == bounded.gradient
    assert f"zone={chosen.codec.config['zone']}" in bounded.gradient
    plain = export(tmp_path, digits, network(relu=False), Goal(target_bytes=400.0))
    assert plain.gradient is not None and not plain.after_relu


def test_bundle_opens_again_and_shows_its_rate(bounded: Bundle) -> None:
    again = open_bundle(bounded.path)
    assert again.gradient == bounded.gradient and again.manifest["rate"] == bounded.manifest["rate"]
    json.dumps(again.manifest, allow_nan=False)


def test_two_goals_are_of_two_rates(bounded: Bundle, digits: Dataset, tmp_path: Path) -> None:
    more = export(tmp_path, digits, network(), Goal(target_bytes=400.0)).manifest["rate"]
    assert uplink(more)["error"] < uplink(bounded.manifest["rate"])["error"]
    assert TARGET < more["bytes"] <= 400


def test_what_the_smallest_zone_leaves_goes_up(digits: Dataset, tmp_path: Path) -> None:
    rate = export(tmp_path, digits, network(), Goal(target_bytes=2000.0)).manifest["rate"]
    assert rate["gradient"].endswith(f"zone={ZONES[0]}")
    assert uplink(rate)["error"] == min(up["error"] for up in rate["uplinks"] if up_bytes(up) < 1000)


def test_rounds_are_held_within_the_target(bounded: Bundle, digits: Dataset, tmp_path: Path) -> None:
    codec = FedAvg()
    plan = RoundPlan(codec, codec, 100.0, 4, 1.0, "sgd", 0.05, 0.9, True)
    rate = export(tmp_path / "a", digits, network(), Goal(target_bytes=TARGET, rounds=plan)).manifest["rate"]
    spent = sum(rate["rounds"].values())
    # Convolution, norm and its statistics, uncompressed, both ways.
    assert 2 * 4 * 112 < 100 * spent < 2 * 4 * 112 + 200 and rate["bytes"] <= TARGET
    chosen = uplink(rate)
    (down,) = [each for each in chosen["downlinks"] if each["policy"] == rate["gradient"]]
    assert rate["bytes"] == pytest.approx(up_bytes(chosen) + down["bytes"] + spent)
    without = bounded.manifest["rate"]
    assert without["rounds"] == {"up": 0.0, "down": 0.0} and rate["bytes"] - spent < without["bytes"]
    same = {(up["groups"], up["bits"]): up["update_bytes"] for up in without["uplinks"]}
    for up in rate["uplinks"]:
        # The mean of 2**bits codewords of 8 channels comes down, two bytes a value.
        merged = up["update_bytes"] - same[up["groups"], up["bits"]]
        assert merged == pytest.approx(2 * 8 * 2 ** up["bits"] / 100)
    with pytest.raises(UsageError, match=r"--target-bytes 40: rounds alone take \d+ B an image: take a coarser"):
        export(tmp_path / "b", digits, network(), Goal(target_bytes=TARGET, rounds=plan._replace(images=20.0)))


def test_a_memory_is_measured_as_in_its_first_epoch(bounded: Bundle, digits: Dataset, tmp_path: Path) -> None:
    rate = export(tmp_path, digits, network(), Goal(target_bytes=TARGET), SGQ(coding="temporal")).manifest["rate"]
    context = {(up["groups"], up["bits"]): up["bytes"] for up in bounded.manifest["rate"]["uplinks"]}
    for up in rate["uplinks"]:
        # Two bytes an image, and one a batch.
        assert 1.9 < up["bytes"] - context[up["groups"], up["bits"]] < 2.3


def test_accuracy_goal(trained: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    bundle = export(tmp_path, digits, trained, Goal(max_accuracy_drop=4.0))
    rate = bundle.manifest["rate"]
    chosen = uplink(rate)
    assert rate["accuracy"] > 80 and rate["accuracy"] - chosen["accuracy"] <= 4
    cheaper = [up for up in rate["uplinks"] if up_bytes(up) < up_bytes(chosen)]
    assert cheaper and all(rate["accuracy"] - up["accuracy"] > 4 for up in cheaper)
    assert calibrator(rate["gradient"], 0).codec.config == calibrator("dct", 0).codec.config
    assert len(chosen["downlinks"]) == len(ZONES)


@pytest.mark.parametrize(
    ("goal", "codec", "images", "message"),
    [
        (Goal(target_bytes=12.0), CONTEXT, 128, r"--target-bytes 12: the least is \d+ B an image"),
        (Goal(max_accuracy_drop=1.0), CONTEXT, 128, "needs a trained network, and its weights are fresh"),
        (Goal(target_bytes=150.0), CONTEXT, 48, "48 calibration images: rates are measured with at least 64"),
        (Goal(target_bytes=150.0), Raw(), 128, "codec 'raw' has no groups and bits"),
        (Goal(), CONTEXT, 128, "give one of"),
        (Goal(target_bytes=150.0, max_accuracy_drop=1.0), CONTEXT, 128, "give one of"),
    ],
)
def test_refused(goal: Goal, codec: FeatureCodec, images: int, message: str, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        export(tmp_path, digits, network(), goal, codec, images)
    assert not list(tmp_path.iterdir())


def test_a_network_that_learned_nothing_has_no_accuracy_to_lose(digits: Dataset, tmp_path: Path) -> None:
    model = network()
    model.train()(normalised(digits, slice(64)))  # statistics that have moved, weights that have not
    with pytest.raises(UsageError, match="of 64 images right: give --weights"):
        export(tmp_path, digits, model, Goal(max_accuracy_drop=1.0))


def test_drop_out_of_reach(trained: nn.Module, digits: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgekit.export.rate.choose.BITS", (1,))
    with pytest.raises(UsageError, match=r"--max-accuracy-drop 0: the best candidate loses \d+\.\d\d points"):
        export(tmp_path, digits, trained, Goal(max_accuracy_drop=0.0))


def test_stopping_leaves_nothing(digits: Dataset, tmp_path: Path) -> None:
    seen = []

    def stop(done: int, total: int, name: str) -> None:
        seen.append((done, total, name))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, digits, network(), Goal(target_bytes=150.0, on_candidate=stop))
    assert [done for done, _, _ in seen] == [0, 1, 2, 3] and not list(tmp_path.iterdir())


def test_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.export.rate.choose.BITS", BITS)
    every = candidates(SGQ(grouping="contiguous", coding="context"), (24, 4, 4))
    assert {each.groups for each in every} == {1, 2, 3, 4, 6, 8, 12} and {each.bits for each in every} == set(BITS)
    assert all(each.grouping == "contiguous" and each.coding == "context" for each in every)
    bits = [each.formula_bits((24, 4, 4)) for each in every]
    assert bits == sorted(bits)
