"""Every shipped profile says something plausible, and a wrong file is refused by file, key, got and expected."""

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgekit.device_profiles.registry as registry
from edgekit.device_profiles.parse import OPERATORS, parse
from edgekit.device_profiles.profile import Hardware, Profile, Target
from edgekit.device_profiles.registry import ALIASES, PROFILES, from_json, profile, profiles
from edgekit.errors import UnknownName, UsageError
from edgekit.export.targets.check import BOARD_RULES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(registry.__file__).parent
LISTS = sorted(file.stem for file in OPERATORS.glob("*.toml"))
#: In the converters' tables, but never in ONNX's operator set: experiments of its first releases, and Huawei's own.
NOT_ONNX = {
    "ImageScaler", "ParametricSoftplus", "ScaledTanh",
    "AdaptiveAvgPool2D", "AdaptiveMaxPool2D", "Addcmul", "AscendAntiQuant", "AscendDequant", "AscendDequantS16",
    "AscendQuant", "AscendRequant", "AscendRequantS16", "BatchMatMul", "BatchMultiClassNMS", "DeformableConv2D",
    "EmbeddingBag", "RoiExtractor",
}  # fmt: skip
#: What the front halves and their quantise stages are made of.
NEEDED = {
    "Add", "ArgMin", "AveragePool", "Cast", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Elu", "Erf", "Exp",
    "Gather", "Gemm", "GlobalAveragePool", "HardSigmoid", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Neg",
    "PRelu", "Pad", "ReduceMean", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Sqrt", "Sub", "Tanh", "Transpose",
}  # fmt: skip


def operators(name: str) -> list[str]:
    found: list[str] = tomllib.loads((OPERATORS / f"{name}.toml").read_text(encoding="utf-8"))["operators"]
    return found


def test_every_file_is_in_the_table() -> None:
    assert sorted(PROFILES.values()) == sorted(file.name for file in FOLDER.glob("*.toml"))
    assert all(profile(name).name == name for name in profiles())
    assert set(ALIASES.values()) <= set(profiles()) and not set(ALIASES) & set(profiles())


@pytest.mark.parametrize("name", PROFILES)
def test_profile_is_plausible(name: str) -> None:
    board = profile(name)
    target, hardware = board.target, board.hardware
    assert set(target.rules) <= set(BOARD_RULES)
    assert {"float32-input", "int32-output", "arg-reduce"} <= set(target.rules)
    (oldest_ir,) = {row[1] for row in onnx.helper.VERSION_TABLE if row[2] == target.opset}
    assert oldest_ir <= target.ir_version <= 10
    assert 1 <= hardware.memory_gib <= 128
    assert 5 <= hardware.bandwidth_gb_s <= 300
    assert 8 <= hardware.cpu_gflops / hardware.cpu_cores <= 100
    # Operations per byte: 9 for processors, 18 to 950 for accelerators.
    assert 8 <= hardware.peak_gflops / hardware.bandwidth_gb_s <= 1000
    said = "\n".join(board.sources)
    assert board.runtime_version and "Calculated: " in said
    assert ("Not confirmed: " in said) == (name != "cpu")
    assert "shared" not in said and not re.search(r"(^|\s)/\w", said)


@pytest.mark.parametrize("name", PROFILES)
def test_figures_are_what_their_calculation_gives(name: str) -> None:
    board = profile(name)
    (said,) = (source.removeprefix("Calculated: ") for source in board.sources if source.startswith("Calculated: "))
    figures = {**board.hardware._asdict(), "bandwidth": board.hardware.bandwidth_gb_s * 1000}
    for names, formula in (part.split(" = ") for part in said.split("; ")):
        factors = [float(term.split()[0].rstrip(".")) for term in formula.split(" x ")]
        for figure in names.split(" and "):
            assert figures[figure] == pytest.approx(math.prod(factors), rel=0.005), f"{figure} = {formula}"


@pytest.mark.parametrize("name", PROFILES)
def test_ways_of_a_runtime(name: str) -> None:
    board = profile(name)
    ways = {
        "onnxruntime": (False, "float32", "batch", "conv", "initialisers", "session"),
        "tensorrt": (True, "float16", "frozen", "conv", "initialisers", "refit"),
        "acl": (True, "float16", "frozen", "matmul", "inputs", "rebuild"),
    }
    target = board.target
    assert ways[board.runtime] == (
        target.static, target.precision, target.norm, target.scores, target.codebooks, target.weights
    )  # fmt: skip
    assert (target.operators == ()) == (board.runtime == "onnxruntime")
    assert ("fp16-range" in target.rules) == (target.precision == "float16")
    assert ("no-batch-norm" in target.rules) == (target.norm == "frozen")
    assert {"compute_capability", "cuda"} <= set(board.versions) or board.runtime != "tensorrt"
    assert "soc_version" in board.versions or board.runtime != "acl"


def test_facts_that_the_exporter_depends_on() -> None:
    for name in ("jetson-nano", "jetson-tx2"):
        assert profile(name).target[:3] == (11, 7, True) and profile(name).python == "3.6"
        assert {"topk", "gemm-bias", "refit-layout", "refit-names"} <= set(profile(name).target.rules)
        assert not {"HardSwish", "OneHot", "Mod", "BitShift", "Reciprocal"} & set(profile(name).target.operators)
    assert "integer-free" in profile("atlas-200-dk").target.rules
    assert "integer-free" not in profile("atlas-200i-dk-a2").target.rules
    assert profile("atlas-200i-dk-a2").versions["soc_version"] == "Ascend310B4"
    assert profile("cpu").target.opset == 15
    assert profile("jetson") == profile("jetson-orin-nano")


@pytest.mark.parametrize("name", LISTS)
def test_operators_are_known_to_onnx(name: str) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(operators(name)) - known <= NOT_ONNX
    assert not NEEDED - set(operators(name))


def test_operator_lists_of_tensorrt_grow() -> None:
    first, second, third = (set(operators(f"tensorrt-{version}")) for version in ("8.2", "8.5", "10.1"))
    assert first < second < third
    assert {written(name)["target"]["operators"] for name in PROFILES if profile(name).target.operators} == set(LISTS)


@pytest.mark.parametrize(("name", "near"), [("jetson-nanno", "jetson-nano"), ("atlas-200i-dk", "atlas-200i-dk-a2")])
def test_unknown_board_gets_near_names(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=rf"unknown device '{name}': did you mean .*\b{near}\b.*`edgekit devices`"):
        profile(name)


def as_toml(table: dict[str, Any]) -> str:
    """`table` as TOML; JSON's strings, numbers and lists are TOML's."""
    flat = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            flat += [f"[{key}]", *(f"{inner} = {json.dumps(entry)}" for inner, entry in value.items())]
    return "\n".join(flat) + "\n"


def written(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / PROFILES[name]).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PROFILES)
def test_a_users_file_gives_the_same_profile(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(as_toml(written(name)), encoding="utf-8")
    assert profile(str(path)) == profile(name)
    # What a bundle carries is a profile's JSON: with all operators written out it is a profile again.
    everything = profile(name).to_json()
    path.write_text(as_toml(everything), encoding="utf-8")
    assert profile(str(path)) == profile(name)
    assert set(everything) == set(Profile._fields)
    assert set(everything["target"]) == set(Target._fields) and set(everything["hardware"]) == set(Hardware._fields)


def wrong(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """The message for jetson-nano's file after `change`."""
    table = written("jetson-nano")
    change(table)
    path = tmp_path / "mine.toml"
    path.write_text(as_toml(table), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        profile(str(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


KEYS = [("", key) for key in Profile._fields] + [
    *(("target", key) for key in Target._fields),
    *(("hardware", key) for key in Hardware._fields),
]


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_key_is_needed(table: str, key: str, tmp_path: Path) -> None:
    message = wrong(tmp_path, lambda t: (t[table] if table else t).pop(key))
    assert f": {f'{table}.' if table else ''}{key} is missing; expected " in message


@pytest.mark.parametrize("table", ["", "target", "hardware"])
def test_no_key_may_be_added(table: str, tmp_path: Path) -> None:
    message = wrong(tmp_path, lambda t: (t[table] if table else t).update(speed=1))
    assert f": unknown key {f'{table}.' if table else ''}speed; expected " in message


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("", "name", "My Board", "name is 'My Board'; expected lower-case"),
        ("", "runtime", "tvm", "runtime is 'tvm'; expected one of \"onnxruntime\""),
        ("", "runtime", "acl", 'versions.cann is missing; with runtime "acl"'),
        ("", "python", "2.7", "python is '2.7'; expected a Python from"),
        ("", "versions", {"cuda": 10}, "versions is {'cuda': 10}; expected a table of texts"),
        ("", "target", 3, "target is 3; expected a table"),
        ("", "sources", "none", "sources is 'none'; expected a list of texts"),
        ("target", "opset", 11.0, "target.opset is 11.0; expected a whole number of 7 to 25"),
        ("target", "opset", True, "target.opset is True; expected a whole number"),
        ("target", "opset", 26, "target.opset is 26; expected a whole number"),
        ("target", "static", 1, "target.static is 1; expected true or false"),
        ("target", "precision", "int8", "target.precision is 'int8'; expected one of"),
        ("target", "norm", [], "target.norm is []; expected one of"),
        ("target", "rules", ["topk", "topk"], "none of them twice"),
        ("target", "rules", [["topk"]], "target.rules is [['topk']]; expected a list of texts"),
        ("target", "operators", "tensorrt-9", 'target.operators is "tensorrt-9"; expected one of cann-5.0.4, tensorrt'),
        ("hardware", "memory_gib", 0, "hardware.memory_gib is 0; expected a number above 0"),
        ("hardware", "cpu_gflops", "45", "hardware.cpu_gflops is '45'; expected a number"),
        ("hardware", "cpu_cores", 2.5, "hardware.cpu_cores is 2.5; expected a whole number"),
    ],
)
def test_wrong_value(table: str, key: str, value: object, message: str, tmp_path: Path) -> None:
    assert message in wrong(tmp_path, lambda t: (t[table] if table else t).update({key: value}))


@pytest.mark.parametrize("number", ["inf", "nan", "-1.0", "true"])
def test_figures_are_finite_and_positive(number: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (FOLDER / PROFILES["cpu"]).read_text(encoding="utf-8")
    path.write_text(text.replace("bandwidth_gb_s = 10.0", f"bandwidth_gb_s = {number}"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"hardware\.bandwidth_gb_s is .*; expected a number above 0"):
        profile(str(path))


def test_operators_may_be_written_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    table = written("jetson-nano")
    table["target"]["operators"] = ["Conv", "Relu"]
    path.write_text(as_toml(table), encoding="utf-8")
    assert parse(path).target.operators == ("Conv", "Relu")
    assert parse(path).sources == tuple(table["sources"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = ", "is no TOML"),
        (b"\xff\xfe", "is no TOML"),
        (b"x = " + b"[" * 5000, "is no TOML"),
        (None, "cannot read"),
    ],
)
def test_what_is_no_profile(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"{message}|{path} {message}"):
        profile(str(path))


VALUES = st.none() | st.booleans() | st.integers(-9, 99) | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.sampled_from(KEYS), st.one_of(VALUES, st.lists(VALUES.filter(lambda v: v is not None), max_size=3)))
def test_any_value_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, str], value: Any
) -> None:
    table, key = place
    changed = written("cpu")
    if value is None:
        (changed[table] if table else changed).pop(key)
    else:
        (changed[table] if table else changed)[key] = value
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(as_toml(changed), encoding="utf-8")
    try:
        board = profile(str(path))
    except UsageError as refused:
        assert key in str(refused) or "is no TOML" in str(refused)
    else:
        kept = board.to_json()
        assert (kept[table] if table else kept)[key] == value


@pytest.mark.parametrize("name", profiles())
def test_a_bundle_carries_the_whole_profile(name: str) -> None:
    assert from_json(json.loads(json.dumps(profile(name).to_json()))) == profile(name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(key=st.sampled_from(sorted(profile("cpu").to_json())), value=JSON)
def test_any_other_description_is_a_value_error(key: str, value: object) -> None:
    described = {**profile("cpu").to_json(), key: value}
    try:
        board = from_json(described)
    except ValueError:
        return
    assert board.runtime == "onnxruntime" and all(isinstance(text, str) for text in board.target.rules)
