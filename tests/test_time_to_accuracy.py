"""A time to an accuracy from runs of bench/accuracy.py: bytes to the byte, rates of the same method, names."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgekit.measure.methods import parse
from tests.one_process import run_together

BENCH = Path(__file__).parents[1] / "bench"
#: Of a run with nothing that sets it apart besides its method.
PLAN = {"noise_filling": None, "front": True}


def test_runs_have_a_time_to_an_accuracy(tmp_path: Path) -> None:
    """Runs of two epochs, tested after both: bytes are the meter's, seconds the line's and those of images/s."""
    accuracy, convert = str(BENCH / "accuracy.py"), str(BENCH / "time_to_accuracy.py")
    options = ["--cut", "features.10", "--dataset", "digits", "--limit", "60", "--batch", "8", "--epochs", "2"]
    options += ["--every", "1"]
    trained = [accuracy, "vgg11_thin", *options, "--methods", "UQ-4;sgq:groups=4,bits=3+dct", "--out", str(tmp_path)]
    record = tmp_path / "record"
    given = ["--to", "1,99", "--links", "loopback,0.1mbit+50ms", "--out", str(record)]
    methods = ("--methods", "SGQ=sgq:groups=4,bits=3+dct;UQ=uniform:bits=4+none")
    ends = run_together([trained, [convert, str(tmp_path), "--rates", "SGQ=30;60", *methods, *given]], BENCH.parent)
    assert not any(end.code for end in ends), ends
    made = json.loads(record.read_text(encoding="utf-8"))
    jsonschema.validate(made, json.loads((BENCH.parent / "docs/to-accuracy.schema.json").read_text(encoding="utf-8")))
    assert (list(made["codecs"]), made["line"], made["against"]) == (["SGQ", "UQ"], "computed", "SGQ")
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")]
    (run,) = [each for each in runs if each["method"] == "UQ-4"]
    epochs = made["trainings"][1]["epochs"]
    # 60 images in batches of 8.
    assert [each["steps"] for each in epochs] == [8, 16]
    for each, line in zip(epochs, run["epochs"], strict=True):
        assert each["images"] == 60 * line["epoch"] and each["accuracy"] == line["accuracy"]
        assert each["seconds"] == {"train": pytest.approx(line["epoch"])}
        # 4 bits for each of 8192 values, and not the bytes of the test.
        assert 4096 * each["images"] < each["bytes_up"] < 4120 * each["images"]
        assert each["bytes_up"] + line["bytes"]["up.evaluate"] <= sum(
            n for kind, n in line["bytes"].items() if kind.startswith("up.")
        )
    apart, over = (row for row in made["results"] if row["codec"] == "UQ")
    assert apart["seconds"] == pytest.approx([1, 2])
    bytes_of = epochs[1]["bytes_up"] + epochs[1]["bytes_down"]
    assert over["seconds"][1] == pytest.approx(2 + 8 * bytes_of / 1e5 + 16 * 0.05)
    reached, never = over["reached"]
    assert reached["epoch"] == 1 and reached["bytes_up"] == epochs[0]["bytes_up"] and never["epoch"] is None


def test_rates_are_those_of_the_same_method_and_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import time_to_accuracy as script

    path = str(BENCH / "results" / "thin-vgg11_thin.json")
    measured = json.loads(Path(path).read_text(encoding="utf-8"))
    setting = measured["setting"]
    plan = {"model": setting["model"], "cut": setting["cut"], "batch": setting["batch"], **PLAN}
    rates = script.rates_of(path, {"plan": plan, "feature": setting["feature"]})
    key = ("uq", "loopback", 1)
    (row,) = [row for row in measured["results"] if (row["codec"], row["link"], row["in_flight"]) == key]
    # Spelt another way, it is the same method.
    spent = script.seconds_per_image(rates, path, "", parse("mine=uniform+stochastic:bits=4"))
    assert spent["train"] == 1 / row["images_per_s"]["median"]
    assert spent["device_compute"] == row["seconds_per_image"]["device_compute"]
    with pytest.raises(SystemExit, match="no images/s of uniform:bits=8"):
        script.seconds_per_image(rates, path, "", parse("uniform:bits=8+stochastic:bits=4"))
    with pytest.raises(SystemExit, match="measured with batch 32, the runs have 64"):
        script.rates_of(path, {"plan": {**plan, "batch": 64}, "feature": setting["feature"]})
    with pytest.raises(SystemExit, match=r"measured without local loss 0\.5, which the run of x has: give figures"):
        script.rates_of(path, {"method": "x", "plan": {**plan, "local_loss": 0.5}, "feature": setting["feature"]})
    with pytest.raises(SystemExit, match="no images/s of fp32"):
        script.seconds_per_image(None, "uq=30", "fp32", parse("fp32=raw+none"))


def run_of(method: str, seed: int = 0, **plan: object) -> dict[str, Any]:
    """The head of a run, and an epoch of it."""
    told = {"model": "vgg11", "cut": None, "epochs": 2, "batch": 8, "seed": seed, **PLAN, **plan}
    epoch = {
        "epoch": 2, "images": 120, "accuracy": 75.0, "bytes_up_per_image": 100.05, "bytes_down_per_image": 10.0,
        "bytes": {"up.feature": 12000, "up.hello": 6, "up.evaluate": 999, "down.gradient": 1200},
    }  # fmt: skip
    return {"method": method, "dataset": "digits", "limit": 60, "feature": [1], "plan": told, "epochs": [epoch]}


def test_runs_are_chosen_named_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import time_to_accuracy as script

    runs = [run_of("FP32", 1), run_of("UQ-4", 1), run_of("UQ-4", 0), run_of("sgq:bits=3+dct"), run_of("sgq:bits=4+dct")]
    names = ["FP32", "UQ-4, seed 0", "UQ-4, seed 1", "sgq:bits=3+dct", "sgq:bits=4+dct"]
    assert list(script.chosen(runs, None, None)) == names
    assert list(script.chosen(runs, "U=uniform:bits=4+none;FP32", 1)) == ["U", "FP32"]
    with pytest.raises(SystemExit, match=r"no run of topk:bits=4\+none: there are FP32, UQ-4"):
        script.chosen(runs, "Top-K", None)
    both = [run_of("UQ-4"), run_of("UQ-4", local_loss=0.5), run_of("UQ-4", 1, local_loss=0.5)]
    names = ["UQ-4", "UQ-4, local loss 0.5, seed 0", "UQ-4, local loss 0.5, seed 1"]
    assert list(script.chosen(both, None, None)) == names
    with pytest.raises(SystemExit, match="two runs of UQ-4, seed 0"):
        script.chosen([*runs, run_of("UQ-4", tolerance=0.2)], None, None)


def test_bytes_so_far_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import time_to_accuracy as script

    run = run_of("FP32")
    assert script.epochs(run) == [
        {"epoch": 2, "images": 120, "accuracy": 75.0, "steps": 16, "bytes_up": 12006, "bytes_down": 1200}
    ]
    (epoch,) = run["epochs"]
    with pytest.raises(SystemExit, match="epoch 2: bytes up by kind are not those of an image"):
        script.epochs({**run, "epochs": [{**epoch, "bytes_up_per_image": 100.0}]})
    with pytest.raises(SystemExit, match="121 images after 2 epochs are no whole epochs"):
        script.epochs({**run, "epochs": [{**epoch, "images": 121}]})
