"""Weights from a safetensors file: what loads, and what each file that does not is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from edgekit import tensorfile
from edgekit.class_names import said_of
from edgekit.errors import DataError, EdgekitError, ExportError, UsageError
from edgekit.export.models.registry import build
from edgekit.export.models.weights import head_weights, load_weights


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def same(first: nn.Module, second: nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_torch_come_back(tmp_path: Path, prefix: str) -> None:
    trained, path = small(), str(tmp_path / "trained.safetensors")
    trained(torch.rand(8, 1, 4, 4))  # moves batch norm's statistics and its count
    save_file({prefix + name: value for name, value in trained.state_dict().items()}, path)
    network = small(1)
    load_weights(network, path)
    assert same(network, trained)


def test_name_of_a_submodule_is_no_prefix(tmp_path: Path) -> None:
    trained, path = nn.ModuleDict({"module": small()}), str(tmp_path / "w.safetensors")
    save_file(trained.state_dict(), path)
    network = nn.ModuleDict({"module": small(1)})
    load_weights(network, path)
    assert same(network, trained)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floats_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    trained, path = small(), str(tmp_path / "w.safetensors")
    half = {name: v.to(dtype) if v.is_floating_point() else v for name, v in trained.state_dict().items()}
    save_file(half, path)
    network = small(1)
    load_weights(network, path)
    for name, value in network.state_dict().items():
        assert value.dtype == trained.state_dict()[name].dtype
        assert torch.equal(value, half[name].to(value.dtype))


def test_count_of_batches_may_be_missing(tmp_path: Path) -> None:
    trained, path = small(), str(tmp_path / "w.safetensors")
    tensors = trained.state_dict()
    del tensors["1.num_batches_tracked"]
    save_file(tensors, path)
    network = small(1)
    load_weights(network, path)
    assert same(network, trained)


def test_weights_of_a_built_in_model(tmp_path: Path) -> None:
    trained, path = build("shufflenet_v2_half", (1, 28, 28), 10, seed=1), str(tmp_path / "w.safetensors")
    save_file(trained.state_dict(), path)
    assert same(build("shufflenet_v2_half", (1, 28, 28), 10, 2, path), trained)
    with pytest.raises(ExportError, match=r"1 of another shape: conv1.0.weight 24x1x3x3, expected 24x3x3x3"):
        build("shufflenet_v2_half", (3, 28, 28), 10, 2, path)


def test_a_local_head_beside_the_weights_is_read_by_itself(tmp_path: Path) -> None:
    trained, head = small(), {"local_head.conv.bias": np.ones(3, np.float32)}
    arrays = {name: value.numpy() for name, value in trained.state_dict().items()}
    file = str(tmp_path / "w.safetensors")
    tensorfile.write(file, {**arrays, **head})
    network = small(1)
    load_weights(network, file)
    assert same(network, trained) and head_weights(file).keys() == head.keys()
    # Of a folder of trained halves it is in the front's file.
    tensorfile.write(str(tmp_path / "front.safetensors"), {**arrays, **head})
    tensorfile.write(str(tmp_path / "back.safetensors"), {})
    network = small(1)
    load_weights(network, str(tmp_path))
    assert same(network, trained) and head_weights(str(tmp_path)).keys() == head.keys()
    tensorfile.write(file, arrays)
    assert head_weights(file) == {}


def test_a_network_may_have_layers_of_that_name_itself(tmp_path: Path) -> None:
    trained = nn.ModuleDict({"local_head": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
    tensorfile.write(str(tmp_path / "w.safetensors"), {n: v.numpy() for n, v in trained.state_dict().items()})
    network = nn.ModuleDict({"local_head": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
    load_weights(network, str(tmp_path / "w.safetensors"))
    assert same(network, trained)


def tensors_but(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """The arrays of `small`; a change's name has _ for a dot, None takes the tensor out."""
    arrays = {name: value.numpy() for name, value in small().state_dict().items()}
    for key, value in changes.items():
        name = key.removeprefix("t").replace("_", ".", 1)
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value
    return arrays


ONES = np.ones((4,), dtype=np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t0_bias": None}, r"of its 9 tensors 1 missing: 0.bias. Expected exactly those of its state_dict"),
        ({"t5_bias": ONES}, r"1 unexpected: 5.bias. Expected"),
        ({"t0_bias": None, "t0_biases": ONES}, r"1 missing: 0.bias; 1 unexpected: 0.biases \(did you mean 0.bias\?\)"),
        ({"t0_bias": np.ones((4, 1), np.float32)}, r"1 of another shape: 0.bias 4x1, expected 4\."),
        ({"t0_bias": np.float32(1).reshape(())}, r"0.bias scalar, expected 4\."),
        ({"t0_bias": np.ones(4, np.int64)}, r"1 of another type: 0.bias int64, expected float32"),
        ({"t1_num_batches_tracked": np.float32(1).reshape(())}, r"tracked float32, expected int64"),
        (
            {"t0_weight": None, "t0_bias": None, "t1_weight": None, "t1_bias": None},
            r"4 missing: 0.weight, 0.bias, 1.weight, \.\.\.\. Expected",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = str(tmp_path / "w.safetensors")
    tensorfile.write(path, tensors_but(**changes))
    network = small(1)
    with pytest.raises(ExportError, match=r"weights .*w.safetensors do not fit Sequential; .*" + message):
        load_weights(network, path)
    assert same(network, small(1)), "a file that does not fit changed the network"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_pickle_is_refused_with_a_recipe_that_works(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"it's{suffix}"
    torch.save(small().state_dict(), path)
    with pytest.raises(UsageError, match="is a pickle, which can run any code") as caught:
        load_weights(small(1), str(path))
    _, first, second = str(caught.value).splitlines()
    exec(f"{first.strip()}\n{second.strip()}", {})
    network = small(1)
    load_weights(network, str(tmp_path / "it's.safetensors"))
    assert same(network, small())


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.safetensors cannot be read: No such file"):
        load_weights(small(), str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(UsageError, match=r"front.safetensors cannot be read: No such file.*`edgekit train --out`"):
        load_weights(small(), str(tmp_path))
    short = tmp_path / "short.safetensors"
    short.write_bytes(b"1234")
    with pytest.raises(DataError, match=r"short.safetensors: .*of 4 B.*expected a safetensors file of float16"):
        load_weights(small(), str(short))
    brain = str(tmp_path / "brain.safetensors")
    save_file({"x": torch.ones(2, dtype=torch.bfloat16)}, brain)
    with pytest.raises(DataError, match=r"BF16.*float16, float32 or float64"):
        load_weights(small(), brain)


@pytest.mark.parametrize(
    ("classes", "says"),
    [(("cat", "dog", "cow"), ""), ((), ""), (("cat", "cow", "dog"), "label 1 means dog there, and cow in the dataset"),
     (("cat", "dog"), "label 2 means cow there, and nothing in the dataset")],
)  # fmt: skip
def test_weights_of_other_classes(tmp_path: Path, classes: tuple[str, ...], says: str) -> None:
    path = str(tmp_path / "w.safetensors")
    tensorfile.write(path, tensors_but(), said_of(["cat", "dog", "cow"]))
    network = small(1)
    if says:
        with pytest.raises(ExportError, match=says):
            load_weights(network, path, classes)
    else:
        load_weights(network, path, classes)
    assert same(network, small(1 if says else 0))


def test_names_of_classes_that_are_none(tmp_path: Path) -> None:
    path = str(tmp_path / "w.safetensors")
    tensorfile.write(path, tensors_but(), {"classes": "cat"})
    with pytest.raises(DataError, match=r"w.safetensors: class names do not parse"):
        load_weights(small(), path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_a_typed_error_or_loads_floats(tmp_path: Path, data: st.DataObject) -> None:
    good = tensorfile.dumps(tensors_but())
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(st.sampled_from([good[:at], good[:at] + b"\x7b" + good[at + 1 :], good + b"\0"]))
    path = tmp_path / "w.safetensors"
    path.write_bytes(bad)
    network = small()
    try:
        load_weights(network, str(path))
    except EdgekitError:
        assert same(network, small())
    else:
        assert len(bad) == len(good)
