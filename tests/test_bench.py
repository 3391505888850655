"""The measurements can still be made: each script starts against the code as it is."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.codecs.registry import UPDATES, feature_codec
from edgekit.data.base import Dataset
from edgekit.runtime.front import Forward
from tests.one_process import Done, run_together

BENCH = Path(__file__).parents[1] / "bench"
SCRIPTS = sorted(path.name for path in BENCH.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def helped() -> dict[str, Done]:
    """How each script ends that is asked for help."""
    ends = run_together([[str(BENCH / script), "--help"] for script in SCRIPTS], BENCH.parent)
    return dict(zip(SCRIPTS, ends, strict=True))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(helped: dict[str, Done], script: str) -> None:
    done = helped[script]
    assert done.code == 0 and f"usage: {script}" in done.out, done.err


#: What sets rows of `accuracy.py` apart, one of each.
APART: list[dict[str, object]] = [
    {"tolerance": 9}, {"mixed": None}, {"codec": "x"}, {"n_epochs": 1}, {"local_loss": 0.5},
    {"gradient_every": 2}, {"correction": 0.5},
]  # fmt: skip


def test_seeds_come_together(tmp_path: Path) -> None:
    """A file of rows and two others, whose one has a seed again and whose other has a new one."""
    row = json.loads((BENCH / "results" / "accuracy.json").read_text(encoding="utf-8"))[0]
    row.update(seeds=[0, 1], accuracies=[50.0, 53.0], accuracy=51.5, bytes_up=100.0, command=["first"])
    others = [{**row, "seeds": [seed], "accuracies": [56.0], "bytes_up": 160.0, "command": ["new"]} for seed in (1, 2)]
    apart = [{**others[1], **other} for other in APART]
    paths = []
    for i, rows in enumerate([[row], [others[0]], [others[1]], apart]):
        paths.append(tmp_path / f"{i}.json")
        paths[-1].write_text(json.dumps(rows), encoding="utf-8")
    command = [sys.executable, str(BENCH / "accuracy.py"), "--json", str(tmp_path / "all"), "--show", *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert "seed 1: 56.0 left out, an earlier source has another" in done.stderr
    rows = sorted(json.loads((tmp_path / "all").read_text(encoding="utf-8")), key=lambda row: -len(row["seeds"]))
    joined, *rest = rows
    assert [other["seeds"] for other in rest] == [[2]] * len(APART)
    # What older rows lack is what it was then.
    assert (joined["local_loss"], joined["gradient_every"]) == (0.0, 1)
    assert (joined["seeds"], joined["accuracies"]) == ([0, 1, 2], [50.0, 53.0, 56.0])
    assert (joined["accuracy"], joined["spread"], joined["bytes_up"]) == (53.0, 6.0, 120.0)
    assert (joined["command"], joined["further_commands"]) == (["first"], [["new"]])


def test_every_method_trains(tmp_path: Path) -> None:
    """Two epochs on digits. Channels are grouped anew between two batches that the server decodes, and it follows."""
    script = str(BENCH / "accuracy.py")
    methods = "FP32;UQ-4;PQ-4;CLIO;Top-K;SGQ-4;sgq:groups=4,bits=3,grouping=significance,coding=temporal+dct"
    options = ["--dataset", "digits", "--limit", "60", "--batch", "5", "--epochs", "2", "--regroup", "1", "--mixed"]
    filled = ("--methods", "SGQ-4", "--noise-filling", "lost")
    local = ("--methods", "FP32", "--local-loss", "0.5", "--gradient-every", "3")
    trained = [
        [script, "vgg11_thin", *options, *more, "--out", str(tmp_path)]
        for more in (("--methods", methods), filled, ("--methods", "UQ-4", "--noise-filling", "0.5"), local)
    ]
    *ends, shown = run_together([*trained, [script, "--show", str(tmp_path)]], BENCH.parent)
    assert not any(end.code for end in ends), ends
    assert len(shown.out.splitlines()) == 2 + 10 and "| UQ-4, noise filling 0.5 |" in shown.out
    assert "| FP32, local loss 0.5, gradient every 3 steps |" in shown.out
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")]
    (last,) = [run["epochs"][-1] for run in runs if "temporal" in run["method"]]
    assert last["codebook"]["regrouped"] == 1
    # In the first epoch all batches but the first are filled.
    for method, noise in (("SGQ-4", "lost"), ("UQ-4", "0.5")):
        found = {run["plan"]["noise_filling"]: run["epochs"][0]["loss"] for run in runs if run["method"] == method}
        assert set(found) == {None, noise} and found[noise] != found[None]


def test_federated_runs_go_on_and_are_compared(tmp_path: Path) -> None:
    """Three methods on digits, of which the first is killed in its second round; then all again."""
    script, runs = str(BENCH / "federated.py"), tmp_path / "runs"
    options = [script, "vgg11_thin", "--dataset", "digits", "--limit", "80", "--clients", "2", "--rounds", "3"]
    options += ["--batch", "16", "--out", str(runs), "--methods"]
    methods = "FedAvg;quantised:step=1@scaling=on:lr=0.01@down=quantised:step=1;quantised@sampling=static:0.5"
    with subprocess.Popen([sys.executable, *options, methods], stderr=subprocess.PIPE, text=True) as begun:
        assert begun.stderr is not None
        while not begun.stderr.readline().startswith("FedAvg seed 0: round 1 "):
            assert begun.poll() is None
        begun.kill()
    assert not list(runs.glob("*.json")) and list(runs.glob("*/checkpoint/*.state"))
    again, whole, refused = run_together(
        [
            [*options, methods],
            [*options[:-3], "--out", str(tmp_path / "whole"), "--methods", "FedAvg"],
            [*options, "zip"],
        ],
        BENCH.parent,
    )
    assert (again.code, whole.code, refused.code) == (0, 0, 2) and "unknown update codec 'zip'" in refused.err, (
        again.err
    )
    assert "FedAvg seed 0: round 1 " not in again.err and "FedAvg seed 0: round 3 " in again.err
    (shown,) = run_together([[script, "--show", str(runs), "--json", str(tmp_path / "rows")]], BENCH.parent)
    assert shown.code == 0 and len(shown.out.splitlines()) == 2 + 3, shown.err
    rows = {row["update_codec"]: row for row in json.loads((tmp_path / "rows").read_text(encoding="utf-8"))}
    scaled, sampled = rows["quantised:step=1"], rows["quantised"]
    assert scaled["scaling_overhead"] > 1 and sampled["scaling_overhead"] is None
    assert scaled["curve"][-1][1] < rows["fedavg"]["curve"][-1][1] / 10
    assert sampled["curve"][-1][1] < 3 * 0.2 * rows["fedavg"]["curve"][0][1]
    # The one that was killed came to the same as one that was not.
    (alone,) = (json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "whole").glob("*.json"))
    assert [[line["round"], line["accuracy"]] for line in alone["rounds"]] == [
        [point[0], pytest.approx(point[-1], abs=0.005)] for point in rows["fedavg"]["curve"]
    ]
    (of_rows,) = run_together([[script, "--show", str(tmp_path / "rows"), "--to", "5,10"]], BENCH.parent)
    assert len(of_rows.out.splitlines()) == 2 + 6


def test_runs_of_one_method_by_other_codecs_are_told_apart(tmp_path: Path) -> None:
    row: dict[str, object] = {
        "model": "vgg11_thin", "dataset": "digits", "limit": None, "method": "FedAvg", "clients": 2, "partition": "iid",
        "rounds": 1, "seed": 0, "local": {}, "best": 50.0, "scaling_overhead": None, "curve": [[1, 9, 9, 9, 50.0]],
    }  # fmt: skip
    meant = ("update_codec", "down_codec", "scaling", "sampling", "policy", "statistics_codec", "scales_codec")
    row.update(dict.fromkeys(meant, "one"))
    rows = [row, *({**row, name: "two"} for name in meant)]
    for name, held in (("first", [row]), ("all", rows)):
        (tmp_path / name).write_text(json.dumps(held), encoding="utf-8")
    command = [str(BENCH / "federated.py"), "--json", str(tmp_path / "shown"), "--show"]
    (done,) = run_together([[*command, str(tmp_path / "first"), str(tmp_path / "all")]], BENCH.parent)
    assert done.code == 0 and len(done.out.splitlines()) == 2 + len(rows), done.err
    assert json.loads((tmp_path / "shown").read_text(encoding="utf-8")) == rows


def test_coding_is_measured_in_training(tmp_path: Path) -> None:
    """A coder with a memory, over two epochs: bytes above the model's entropy, images' numbers among them."""
    record = tmp_path / "coder.json"
    options = ["--models", "vgg11_thin", "--limit", "576", "--epochs", "2", "--out", str(record)]
    options += ["--codecs", "sgq:groups=4,bits=3,coding=temporal+none"]
    subprocess.run([sys.executable, str(BENCH / "coder.py"), *options], check=True, timeout=300)
    (run,) = json.loads(record.read_text(encoding="utf-8"))["runs"]
    assert len(run["epochs"]) == 2
    for told in run["epochs"]:
        assert 0 < told["coded_above_model"] < min(told["above_model"], 0.1)
        numbers = (told["above_model"] - told["coded_above_model"]) * told["model_bytes_per_image"]
        # 2 B of every image's number, 1 B a batch that says so.
        assert abs(numbers - (2 + 1 / 32)) < 0.02
        assert told["front"]["median_ms"] > 0
        for stage in ("pack", "unpack", "absorb"):
            assert all(told[stage][name]["median_ms"] > 0 for name in ("native", "numpy"))


def test_rounding_is_what_autocast_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import bfloat16

    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    depthwise = [nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.MaxPool2d(2)]
    layers = [*first, *depthwise, nn.Flatten(), nn.Linear(8 * 4, 10)]
    halves = [nn.Sequential(*copy.deepcopy(layers)) for _ in range(2)]
    image, gradient = torch.randn(16, 3, 8, 8), torch.randn(16, 10)
    outputs = []
    for native, half in zip((True, False), halves, strict=True):
        monkeypatch.setattr(bfloat16, "native", lambda native=native: native)
        bfloat16.bfloat16(half)
        with bfloat16.precision(True):
            output = half(image)
        assert output.dtype == (torch.bfloat16 if native else torch.float32)
        output.backward(gradient.to(output.dtype))
        outputs.append(output.float())
    # Sums in another order round otherwise now and then, by 1 in 256; float32 differs everywhere.
    assert (outputs[0] == outputs[1]).float().mean() > 0.9
    for one, other in zip(*(half.parameters() for half in halves), strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).norm() < 0.02 * other.grad.norm() + 1e-3


def test_engines_are_compared_in_a_step(tmp_path: Path) -> None:
    """PyTorch in two memory formats and edgekit, whose weights agree; MNN is left out without an interpreter."""
    record = tmp_path / "steps.json"
    options = ["--models", "vgg11_thin@features.4", "--engines", "pytorch,pytorch-channels-last,mnn,edgekit-sgq"]
    options += ["--batch", "4", "--repeats", "2", "--steps", "2", "--out", str(record)]
    script = str(BENCH / "peer_steps.py")
    ended, shown = run_together([[script, *options], [script, "--show", str(record)]], BENCH.parent)
    assert ended.code == 0 and "mnn is left out" in ended.err, ended.err
    rows = {row["engine"]: row for row in json.loads(record.read_text(encoding="utf-8"))["results"]}
    assert list(rows) == ["pytorch", "pytorch-channels-last", "edgekit-sgq"]
    for row in rows.values():
        assert row["ms"]["median_ms"] > 0 and row["peak_bytes"] > 1e7 and row["deviation"] < 1e-2
    needs = [{name.split()[0] for name in row["installed"]} for row in rows.values()]
    assert {"numpy", "torch", "sympy"} <= needs[0] == needs[1]
    assert {"numpy", "onnxruntime", "edgekit's"} <= needs[2] and "torch" not in needs[2]
    assert len(shown.out.splitlines()) == 2 + 3


def test_engines_get_chains_alone_and_other_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import peer_steps
    import step_task

    from edgekit.export.models.registry import build
    from edgekit.export.split import split

    with pytest.raises(SystemExit, match="expected a chain"):
        peer_steps.layers(split(build("resnet18", (3, 32, 32), 10, 0), "layer1")[0])
    for of, value in (("given", 0.0), ("one", 1.1), ("other", 1.001)):
        step_task.write_weights({"weight": np.full(3, value, dtype=np.float32)}, str(tmp_path), of)
    expected = {"weight": np.ones(3, dtype=np.float32)}
    assert peer_steps.deviation("other", expected, str(tmp_path)) == pytest.approx(1e-3, rel=1e-2)
    with pytest.raises(SystemExit, match=r"one: weights deviate by 0\.1"):
        peer_steps.deviation("one", expected, str(tmp_path))


def test_images_are_reconstructed_from_features(tmp_path: Path) -> None:
    """A decoder of a few steps on digits is closer than who knows the labels alone; what is shown is drawn too."""
    record, drawn = tmp_path / "leak.json", tmp_path / "leak.png"
    options = ["--dataset", "digits", "--limit", "64", "--epochs", "1", "--known", "512", "--test", "40"]
    options += ["--decoder-epochs", "4", "--cuts", "features.3", "--deeper", "FP32"]
    script = str(BENCH / "leak.py")
    made = [script, *options, "--out", str(record), "--plot", str(drawn)]
    ended, shown = run_together([made, [script, "--show", str(record)]], BENCH.parent)
    assert ended.code == 0, ended.err
    rows = {(row["sent"], row.get("cut")): row for row in json.loads(record.read_text(encoding="utf-8"))["rows"]}
    labels = rows.pop(("labels alone", None))
    assert labels["mse"] < rows.pop(("mean image", None))["mse"]
    cut = "features.10"
    assert list(rows) == [*((name, cut) for name in ("FP32", "UQ-4", "SGQ 8x5", "SGQ 4x6")), ("FP32", "features.3")]
    assert max(row["mse"] for row in rows.values()) < labels["mse"]
    assert [rows[name, cut]["bytes"] for name in ("FP32", "SGQ 8x5", "SGQ 4x6")] == [32768, 320, 192]
    assert len(shown.out.splitlines()) == 2 + 2 + len(rows)
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_similarity_of_images_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """One window's worth, from means and variances written out; and 20 dB for an error of a tenth."""
    monkeypatch.syspath_prepend(BENCH)
    import inversion

    first, second = np.random.default_rng(0).random((2, 11, 11))
    weight = np.exp(-np.add.outer(np.arange(-5, 6) ** 2, np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    means = [float((weight * image).sum()) for image in (first, second)]
    apart = [image - mean for image, mean in zip((first, second), means, strict=True)]
    spread = sum((weight * each**2).sum() for each in apart)
    expected = (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
    expected *= (2 * (weight * apart[0] * apart[1]).sum() + 9e-4) / (spread + 9e-4)
    one, other = (torch.from_numpy(image).float()[None, None].expand(2, 3, -1, -1) for image in (first, second))
    assert inversion.ssim(one, other).tolist() == pytest.approx([expected] * 2, rel=1e-4)
    assert inversion.ssim(one, one).tolist() == pytest.approx([1.0] * 2)
    told = inversion.figures(torch.full((2, 3, 16, 16), 0.6), torch.full((2, 3, 16, 16), 0.5))
    assert (told["mse"], told["psnr"]) == pytest.approx((0.01, 20.0), rel=1e-3)


def test_compiled_kernels_are_fuzzed() -> None:
    """For two seconds, with whatever finds memory errors: none is found, in payloads of every kind, right and wrong."""
    compiler = shutil.which("cc")
    told = [compiler or "true", "-print-file-name=libasan.so"]
    library = subprocess.run(told, capture_output=True, text=True, timeout=60, check=False).stdout.strip()
    if compiler is None or not Path(library).is_file():
        pytest.skip("no C compiler here that has the address sanitizer as a library (gcc has)")
    command = [sys.executable, str(BENCH / "fuzz.py"), "--seconds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told_of = json.loads(done.stdout)
    assert 0 < told_of["refused"] < told_of["payloads"]
    kinds = {name.partition(" ")[0] for name in told_of["codecs"]}
    # Which codecs of a kind are drawn in two seconds is chance.
    assert {"sgq", "codebook"} <= kinds and kinds & {"sparse", "dct", "stochastic"}
    assert kinds & {"rows", *UPDATES} - {"fedavg"}


def test_levels_of_updates_are_chosen_as_codecs_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from saved_updates import FINE_STEP, GAMMA, LEVELS, STEP, read

    rng = np.random.default_rng(0)
    update = {"weight": 5e-3 * rng.normal(size=(40, 9, 3, 3)), "bias": 1e-3 * rng.normal(size=40)}
    np.savez(tmp_path / "updates", **{f"run/{name}": values for name, values in update.items()})  # type: ignore[arg-type]
    assert list(read(str(tmp_path / "updates.npz"))["run"]) == list(update)
    made = {way: choose(update) for way, choose in LEVELS.items()}
    whole = made["all"]
    for name, step in (("weight", STEP), ("bias", FINE_STEP)):
        assert np.abs(whole[name] * step - update[name]).max() <= step / 2
    for way in ("equations 2 and 3", "96 % zero", "99 % zero"):
        np.testing.assert_array_equal(made[way]["bias"], whole["bias"])
        kept = made[way]["weight"] != 0
        np.testing.assert_array_equal(made[way]["weight"][kept], whole["weight"][kept])
    for way, share in (("96 % zero", 0.04), ("99 % zero", 0.01)):
        assert np.count_nonzero(made[way]["weight"]) == int(share * update["weight"].size)
    means = np.abs(update["weight"].mean(axis=(1, 2, 3)))
    active = means >= GAMMA * means.mean()
    beyond = np.abs(update["weight"]) >= update["weight"].std() + abs(update["weight"].mean())
    expected = beyond & active[:, None, None, None]
    np.testing.assert_array_equal(made["equations 2 and 3"]["weight"] != 0, expected)
    levels = np.concatenate([values.reshape(-1) for values in made["1 % in 8 levels"].values()])
    assert np.count_nonzero(levels) == int(0.01 * levels.size) and np.abs(levels).max() == 8


def test_updates_are_coded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of update_coder.py but nncodec, in whose place the record has our own figures twice."""
    monkeypatch.syspath_prepend(BENCH)
    import update_coder

    levels = np.random.default_rng(0).integers(-1, 2, (20, 30))
    arrays = {"weight": levels, "bias": levels[0]}
    assert [update_coder.shape(array) for array in arrays.values()] == [(600, 20), (30, 1)]
    assert update_coder.entropy({"one": np.array([0, 1] * 40)}) == pytest.approx(10)
    ours = update_coder.told([update_coder.turn(arrays)] * 2, 630)
    row = {"values": 630, "nonzero": 0.6, "entropy_bytes": 124, "rows": ours, "deepcabac": ours}
    every = update_coder.total([{"case": "one", **row}, {"case": "other", **row}])
    assert every["rows"]["bytes"] == 2 * ours["bytes"] and every["values"] == 1260
    lines = update_coder.table({"cases": [{"case": "one", **row}], "total": every}).splitlines()
    assert len(lines) == 4 and "| +0.0 % |" in lines[2] and lines[3].count("1.0x") == 2


def test_the_correction_pulls_a_feature_to_its_codewords(monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from torch_halves import TorchFront

    codec = feature_codec("product", {"groups": 2, "bits": 2})
    feature = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)
    tables = codec.calibrate(feature, 0)
    codes, gradient = codec.quantize(feature, tables), np.ones_like(feature)
    moved = []
    for correction in (0.0, 0.5):
        front = TorchFront(nn.Conv2d(4, 4, 1), codec, tables, digits, 0.0, correction=correction)
        output = torch.from_numpy(feature.copy()).requires_grad_()
        front.backward(Forward(feature, codes, feature, (output, np.arange(4))), gradient)
        assert output.grad is not None
        moved.append(output.grad.numpy())
    np.testing.assert_array_equal(moved[0], gradient)
    away = feature - codec.dequantize(codes, tables)
    np.testing.assert_allclose(moved[1] - gradient, 0.5 / feature.std() * away, rtol=1e-4, atol=1e-6)
