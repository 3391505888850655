import copy
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import edgekit
from edgekit.bundle import Bundle
from edgekit.errors import BundleError
from edgekit.server.program import ExportedProgram, load_program

ROOT = Path(edgekit.__file__).parent.parent
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLE = "data/sample_inputs/model.pt"
Change = Callable[[Any], None]


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def archive_of(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr("archive/" + name, content)
    return file.getvalue()


def changed(data: bytes, entry: str, change: Change) -> bytes:
    contents = entries(data)
    value = json.loads(contents[entry])
    change(value)
    return archive_of(contents | {entry: json.dumps(value).encode()})


class Touch:
    """Unpickles by creating a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def pickled(path: Path) -> bytes:
    file = io.BytesIO()
    torch.save(((Touch(path),), {}), file)
    return file.getvalue()


def node(model: Any) -> Any:
    return model["graph_module"]["graph"]["nodes"][1]


def batch(model: Any) -> Any:
    return model["graph_module"]["graph"]["tensor_values"]["feature"]["sizes"][0]["as_expr"]


def assign(find: Callable[[Any], Any], key: str, value: Any) -> Change:
    def change(model: Any) -> None:
        assert key in find(model)
        find(model)[key] = value

    return change


def whole(data: bytes, module: nn.Module) -> ExportedProgram:
    """The program in `data`, with the weights of `module`."""
    program = load_program(data, "x.pt2")
    program.share({name: tensor.detach().clone() for name, tensor in module.state_dict().items()})
    return program


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_an_exported_program_loads_and_takes_any_batch(
    make_back: Any, make_archive: Any, training: bool, bare: bool
) -> None:
    module = make_back().train(training)
    program = whole(make_archive(module, training, bare), module)
    assert [len(program(torch.zeros(n, 8, 4, 4))) for n in (2, 3, 7)] == [2, 3, 7]
    assert program.batch == (2 if training else 1, 1 << 16)


def test_a_bare_archive_holds_no_weights_no_pickle_and_no_path(archives: Any) -> None:
    contents = entries(archives[0])
    assert contents[SAMPLE] == b""
    assert sum(len(content) for name, content in contents.items() if "weights/weight_" in name) <= 8 * len(archives[2])
    assert __file__.encode() not in archives[0]


def test_an_archive_written_by_zipfile_still_loads(archives: Any) -> None:
    assert isinstance(load_program(archive_of(entries(archives[0])), "x.pt2"), ExportedProgram)


def test_a_sample_that_unpickles_more_than_tensors_is_not_loaded_although_torch_would(
    archives: Any, tmp_path: Path
) -> None:
    data = archive_of(entries(archives[0]) | {SAMPLE: pickled(tmp_path / "touched")})
    load_program(data, "x.pt2")
    assert not (tmp_path / "touched").exists()
    with pytest.raises((TypeError, ValueError, AssertionError, AttributeError, RuntimeError)):
        torch.export.load(io.BytesIO(data))
    assert (tmp_path / "touched").exists(), "the attack would have worked"


def test_an_expression_that_runs_code_is_refused_although_torch_would_run_it(archives: Any, tmp_path: Path) -> None:
    code = f"__import__('pathlib').Path({str(tmp_path / 'touched')!r}).touch()"
    data = changed(archives[0], MODEL, assign(batch, "expr_str", code))
    with pytest.raises(BundleError, match="expr_str"):
        load_program(data, "x.pt2")
    assert not (tmp_path / "touched").exists()
    with pytest.raises((TypeError, ValueError, AssertionError, AttributeError, RuntimeError)):
        torch.export.load(io.BytesIO(data))
    assert (tmp_path / "touched").exists(), "the attack would have worked"


def test_guards_are_not_executed(make_back: Any, make_archive: Any, tmp_path: Path) -> None:
    code = f"[__import__('pathlib').Path({str(tmp_path / 'touched')!r}).touch()]"
    module = make_back()
    data = make_archive(module, training=True, bare=False)
    data = changed(data, MODEL, assign(lambda m: m, "guards_code", [code]))
    whole(data, module)(torch.zeros(2, 8, 4, 4))
    assert not (tmp_path / "touched").exists()
    torch.export.load(io.BytesIO(data)).module()(torch.zeros(2, 8, 4, 4))
    assert (tmp_path / "touched").exists(), "the attack would have worked"


#: Operators of aten that reach beyond their tensors.
BEYOND = ("_reshape_alias", "resize_", "set_", "save", "manual_seed", "set_grad_enabled", "_nested_view_from_buffer")


@pytest.mark.parametrize(
    "change",
    [
        assign(node, "target", "torch.hub.load"),
        assign(node, "target", "torch.ops.aten.from_file.default"),
        *(assign(node, "target", f"torch.ops.aten.{name}.default") for name in BEYOND),
        assign(node, "target", "torch.ops.load_library"),
        assign(node, "target", "_operator.call"),
        assign(node, "target", "torch.ops.aten.__class__.mro"),
        assign(node, "target", "torch.ops.aten.relu.schemas"),
        assign(lambda m: node(m)["inputs"][0], "arg", {"as_operator": "torch.hub.load"}),
        assign(lambda m: node(m)["inputs"][0], "arg", {"as_tensor": {"name": "elsewhere"}}),
        assign(lambda m: m["graph_module"]["signature"]["input_specs"][0]["parameter"], "parameter_name", 'a"]+print('),
    ],
)
def test_a_model_that_names_code_is_refused(archives: Any, change: Change) -> None:
    with pytest.raises(BundleError, match=r"x\.pt2: models/model\.json has"):
        load_program(changed(archives[0], MODEL, change), "x.pt2")


@pytest.mark.parametrize(
    "entry",
    [
        "data/aotinductor/model/x.so",
        "data/weights/model.pt",
        "data/constants/model.pt",
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "models/other.json",
        "extra/notes.txt",
    ],
)
def test_an_entry_that_no_tensor_program_needs_is_refused(archives: Any, entry: str) -> None:
    with pytest.raises(BundleError, match=entry):
        load_program(archive_of(entries(archives[0]) | {entry: b"x"}), "x.pt2")


@pytest.mark.parametrize("meta", [{"use_pickle": True}, {"path_name": "opaque_obj_0"}, {"path_name": "../model.pt"}])
def test_a_weight_that_would_be_unpickled_is_refused(archives: Any, meta: dict[str, Any]) -> None:
    data = changed(archives[0], WEIGHTS, lambda config: config["config"]["linear.bias"].update(meta))
    with pytest.raises(BundleError, match=r"linear\.bias.*unpickled"):
        load_program(data, "x.pt2")


@pytest.mark.parametrize("entry", [MODEL, WEIGHTS, CONSTANTS])
def test_a_missing_entry_is_a_bundle_error(archives: Any, entry: str) -> None:
    contents = copy.copy(entries(archives[0]))
    del contents[entry]
    with pytest.raises(BundleError, match=r"x\.pt2"):
        load_program(archive_of(contents), "x.pt2")


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_bytes_that_are_no_archive_are_a_bundle_error(data: bytes) -> None:
    with pytest.raises(BundleError):
        load_program(data, "x.pt2")


@pytest.fixture(scope="session")
def read_archive(archives: Any) -> Callable[[], bytes]:
    """A function, so that Hypothesis prints no archive."""
    return lambda: archives[1]


@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=3))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_damaged_archive_loads_or_is_a_bundle_error(
    read_archive: Callable[[], bytes], cut: float, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(read_archive())
    if not flips:
        del data[int(cut * len(data)) :]
    for place, flip in flips:
        data[int(place * (len(data) - 1))] ^= flip
    try:
        load_program(bytes(data), "x.pt2")
    except BundleError as error:
        assert "x.pt2" in str(error)


def test_a_program_without_a_weight_that_it_names_is_a_bundle_error(archives: Any) -> None:
    data = changed(archives[1], WEIGHTS, lambda config: config["config"].pop("linear.bias"))
    with pytest.raises(BundleError, match=r"has 'linear\.bias', which is not among the weights"):
        load_program(data, "x.pt2")


def test_an_archive_of_another_form_of_torch_is_told(archives: Any) -> None:
    data = changed(archives[0], MODEL, assign(lambda m: m["schema_version"], "major", 7))
    with pytest.raises(BundleError, match=r"x\.pt2: torch\.export's form 7, expected 8: export it with torch 2"):
        load_program(data, "x.pt2")


def test_a_compressed_archive_is_refused(archives: Any) -> None:
    """A few bytes could unfold to gigabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries(archives[0]).items():
            archive.writestr("archive/" + name, content)
    with pytest.raises(BundleError, match="no part of a plain tensor program"):
        load_program(file.getvalue(), "x.pt2")


class Sizes(nn.Module):
    """Feature (n,8,4,4) -> logits (n,3): computed sizes, several results, constants."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.register_buffer("shift", torch.arange(3.0), persistent=False)
        self.scale = torch.tensor([2.0])

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        n, channels = feature.shape[:2]
        first, second = torch.chunk(feature, 2, dim=1)
        largest, _ = torch.cat([first * self.scale, second], 1).reshape(n * channels, 16).max(dim=1)
        x = torch.stack([largest.reshape(n, channels)] * 8, dim=2).reshape(n, 8 * channels)
        x = x + torch.zeros(n, 1, dtype=torch.float32, device=feature.device)
        logits: torch.Tensor = self.linear(x).clamp(min=-float("inf"), max=None) + self.shift
        return logits[:, [0, 2, 1]]


@pytest.mark.parametrize("bare", [True, False])
def test_a_program_computes_what_the_network_does(make_archive: Any, bare: bool) -> None:
    torch.manual_seed(0)
    module = Sizes().eval()
    program = whole(make_archive(module, False, bare), module)
    for n in (1, 2, 5):
        feature = torch.rand(n, 8, 4, 4)
        assert torch.equal(program(feature), module(feature))


def test_a_server_starts_without_the_compiler_of_torch(small_bundle: Bundle) -> None:
    """It would take longer than all else."""
    code = f"""
import sys, numpy, torch
from edgekit.bundle import open_bundle
from edgekit.server.calibrate import calibrator
from edgekit.server.setup import setup_from_bundle
from edgekit.server.train import OptimizerConfig, Part
bundle = open_bundle({small_bundle.path!r})
part = Part(torch.rand(4, *bundle.feature_shape), numpy.arange(16), numpy.zeros(4, numpy.int64))
for name in ("sgd", "adam"):
    setup = setup_from_bundle(bundle, torch.device("cpu"), calibrator("none", 0), OptimizerConfig(name), "constant")
    setup.back.step([part], 0.1)
    setup.back.evaluate(*part)
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.stdout == "[]\n", done.stdout + done.stderr
