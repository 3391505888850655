"""Manifests from outside: whatever one says, opening gives a Bundle or a BundleError."""

import copy
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle import MANIFEST, Bundle, open_bundle, write_bundle
from edgekit.errors import BundleError
from edgekit.tensors import TensorSpec


def places(value, path=()):
    """Where something is in a JSON value, by keys."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(value, path, new):
    """A copy of `value` with `new` at `path`; `DELETED` leaves the place out."""
    if not path:
        return new
    value = copy.copy(value)
    if new is DELETED and len(path) == 1:
        del value[path[0]]
    else:
        value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value


DELETED = object()


def test_every_truncation_of_the_manifest_is_refused(bundle, rewrite):
    raw = Path(bundle.path, MANIFEST).read_bytes()
    for length in [*range(0, len(raw) - 2, 37), len(raw) - 2]:
        rewrite(raw[:length])
        with pytest.raises(BundleError, match=MANIFEST):
            open_bundle(bundle.path)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_for_a_manifest_is_refused(bundle, rewrite, garbage):
    rewrite(garbage)
    with pytest.raises(BundleError, match=MANIFEST):
        open_bundle(bundle.path)


@pytest.mark.parametrize("raw", [b"[" * 60_000, b'{"format": 3, "files": {}}', b"null", b'"format"', b"[1]", b"1e999"])
def test_other_json_for_a_manifest_is_refused(bundle, rewrite, raw):
    rewrite(raw)
    with pytest.raises(BundleError, match=MANIFEST):
        open_bundle(bundle.path)


def test_another_format_is_refused_even_when_nothing_else_is_known_of_it(bundle, rewrite):
    rewrite({"format": 4})
    with pytest.raises(BundleError, match="bundle format 4, this version reads 3: export it again"):
        open_bundle(bundle.path)


WRONG = [DELETED, None, True, -1, 0.5, 1e999, -(10**400), "", "x", "\ud800", [], [None], {}, {"x": 1}]


#: Where a value may be left out, or where the codec decides.
FREE = ("edgekit",), ("codec", "config", "bits"), ("codec", "config", "groups")


def test_a_field_that_is_missing_or_of_another_type_is_refused(bundle, full, content, rewrite):
    for path in places(content):
        # The three graphs are read alike.
        if not path or path in FREE or path[1:2] in (("front_grad",), ("front_train",)):
            continue
        taken = []
        for wrong in WRONG:
            rewrite(replaced(full, path, wrong))
            try:
                open_bundle(bundle.path)
            except BundleError:
                continue
            taken.append(wrong)
        assert len(taken) <= 6, f"{path} takes {taken}"
    rewrite(full)
    assert isinstance(open_bundle(bundle.path), Bundle)


def test_a_bundle_of_before_class_names_is_opened(bundle, full, rewrite):
    rewrite(replaced(full, ("model", "class_names"), DELETED))
    opened = open_bundle(bundle.path)
    assert opened.class_names == () and opened.classes == 3


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.sampled_from([10**400, 2**63])
    | st.floats()
    | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=5,
)


@given(st.data(), json_values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_value_anywhere_gives_a_bundle_or_a_bundle_error(bundle, full, rewrite, data, value):
    rewrite(replaced(full, data.draw(st.sampled_from(list(places(full)))), value))
    try:
        opened = open_bundle(bundle.path)
    except BundleError as error:
        assert str(error).encode()  # can be shown
        return
    assert opened.codec.code_specs(TensorSpec("feature", "float32", (-1, *opened.feature_shape)))
    assert len(opened.class_names) in (0, opened.classes) and len(set(opened.class_names)) == len(opened.class_names)
    assert opened.mean.shape == opened.std.shape == (opened.input_shape[0],)
    assert np.isfinite(1 / opened.std).all()


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("codec", "id"), "sqg", "unknown feature codec 'sqg': did you mean sgq"),
        (("codec", "id"), [], "does not describe a bundle"),
        (("codec", "config"), {"groups": 2, "bits": 4, "depth": 1}, "unknown setting of feature codec"),
        (("codec", "config"), {"groups": 2.0, "bits": 4}, "got 2.0 and 4"),
        (("codec", "config"), {"groups": 2, "bits": 9}, "1 to 8 bits"),
        (("codec", "config"), {"groups": 3, "bits": 4}, "3 groups cannot code 4 channels"),
        (("codec", "config"), None, "does not take None"),
        (("model", "input"), [3, 8], "not enough values"),
        (("model", "input"), [3, 8, 0], "not made of counts"),
        (("model", "input"), "388", "not made of counts"),
        (("model", "classes"), 10**400, "not made of counts"),
        (("model", "classes"), 4, "3 class names, expected 4"),
        (("model", "class_names"), None, "expected a list of texts"),
        (("model", "class_names"), "cat", "expected a list of texts"),
        (("model", "class_names"), [], "0 class names, expected 3"),
        (("model", "class_names"), ["cat", "dog", "dog"], "class name 'dog' stands there twice"),
        (("model", "class_names", 1), 7, "class name 7: expected a printable text"),
        (("model", "class_names", 1), "", "class name '': expected a printable text"),
        (("model", "class_names", 1), "\x1b[2J", "expected a printable text"),
        (("normalise", "std"), [1, 1], "one number for each of 3 channels"),
        (("normalise", "std"), [1, 1, 0], "not made of numbers from 1e-06"),
        (("normalise", "std"), [1, 1, float("nan")], "not made of numbers"),
        (("normalise", "mean"), [1, 1, 10**400], "not made of numbers"),
        (("feature_tensor",), "nothing", "KeyError"),
        (("batch_norms", 0, "batch_mean"), "nothing", "KeyError"),
        (("batch_norms", 0, "momentum"), 2, "momentum 2 is not in 0..1"),
        (("folds", 0, "norm"), "", "names no layers"),
        (("folds", 0, "epsilon"), -1, "epsilon -1 is not in 0..1"),
        (("device",), {"name": "\x1b[2J"}, "no printable text"),
        (("device",), [], "KeyError"),
        (("norm",), "none", "KeyError"),
        (("graphs", "front", "inputs", 0, "dtype"), "(1 2f4,i4", "is no tensor"),
        (("graphs", "front", "ordered"), ["nothing"], "are not all constants"),
        (("graphs", "front", "constants", 0, "shape", 0), 5, "other channels than the feature"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_wrong(bundle, full, rewrite, path, value, reason):
    rewrite(replaced(full, path, value))
    with pytest.raises(BundleError, match=reason) as caught:
        open_bundle(bundle.path)
    assert MANIFEST in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "..", ".", "", "a/../../secret", "a\0b", "\ud800", "\x1b[2J"]
)
def test_a_file_name_that_leaves_the_folder_is_refused(bundle, full, content, files, rewrite, tmp_path, name):
    (tmp_path / "secret").write_bytes(b"secret")
    right = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    rewrite({**full, "files": {**full["files"], name: right}})
    with pytest.raises(BundleError, match="leaves the folder or cannot be shown"):
        open_bundle(bundle.path)
    with pytest.raises(BundleError, match="leaves the folder or cannot be shown"):
        write_bundle(str(tmp_path / "new"), content, {**files, name: b"mine"})
    assert (tmp_path / "secret").read_bytes() == b"secret" and sorted(os.listdir(tmp_path)) == ["bundle", "secret"]


@pytest.mark.parametrize("wrong", [{"bytes": 8}, {"bytes": "9"}, {"sha256": None}, {"sha256": "0" * 64}])
def test_a_wrong_hash_or_size_is_refused(full, rewrite, bundle, wrong):
    entry = full["files"]["back_train.pt2"]
    assert entry["bytes"] == 9
    rewrite({**full, "files": {**full["files"], "back_train.pt2": {**entry, **wrong}}})
    with pytest.raises(BundleError, match=r"back_train.pt2: sha256 [0-9a-f]{64} \(9 B\), expected"):
        open_bundle(bundle.path)


def with_local(full, **changes):
    """`full` and the graph of a local loss, which has some fields other than it should."""
    head = [{"name": "local_head.weight", "dtype": "float32", "shape": [3, 4]}]
    graph = {
        "file": "local.onnx",
        "inputs": [
            {"name": "feature", "dtype": "float32", "shape": [-1, 4, 2, 2]},
            {"name": "labels", "dtype": "float32", "shape": [-1, 3]},
        ],
        "held": [*head, {"name": "codebook_order", "dtype": "float32", "shape": [4]}],
        "constants": [],
        "outputs": [
            {"name": "loss", "dtype": "float32", "shape": [1]},
            {"name": "gradient", "dtype": "float32", "shape": [-1, 4, 2, 2]},
            {"name": "gradient.local_head.weight", "dtype": "float32", "shape": [3, 4]},
        ],
        "ordered": [],
    }
    for path, value in changes.items():
        graph = replaced(graph, tuple(int(key) if key.isdigit() else key for key in path.split("__")), value)
    return {**full, "graphs": {**full["graphs"], "local": graph}}


def test_a_local_head_may_be_there(bundle, full, rewrite):
    assert open_bundle(bundle.path).head == ()
    rewrite(with_local(full))
    opened = open_bundle(bundle.path)
    assert opened.head == ("local_head.weight",) and opened.graphs["local"].file == "local.onnx"
    # It learns only where the server trains with it.
    assert "local_head.weight" not in opened.learned


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs__0__name": "image"}, "expected feature and labels"),
        ({"inputs__0__shape__1": 5}, "expected feature and labels"),
        ({"inputs__1__shape__1": 4}, "expected feature and labels"),
        ({"inputs__1__dtype": "int64"}, "expected feature and labels"),
        ({"inputs__1": DELETED}, "expected feature and labels"),
        ({"outputs__0": DELETED}, "gives no loss"),
        ({"outputs__0__shape": []}, "gives no loss"),
        ({"outputs__1__shape__1": 8}, "no gradient at the feature"),
        ({"outputs__2__name": "weight"}, "expected a gradient of weights it holds"),
        (
            {"outputs__2__name": "gradient.conv.weight", "held__0__name": "conv.weight"},
            "expected a gradient of weights",
        ),
        ({"outputs__2__shape__0": 4}, "expected a gradient of weights it holds"),
        ({"held__0__name": "else"}, "expected a gradient of weights it holds"),
        ({"held": None}, "does not describe a bundle"),
        ({"file": None}, "no printable text"),
    ],
)
def test_another_graph_for_a_local_head_is_refused(bundle, full, rewrite, changes, reason):
    rewrite(with_local(full, **changes))
    with pytest.raises(BundleError, match=reason):
        open_bundle(bundle.path)


@given(st.data(), json_values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_any_value_anywhere_in_a_local_head_gives_a_bundle_or_a_bundle_error(bundle, full, rewrite, data, value):
    local = with_local(full)
    places_of_it = [path for path in places(local) if path[:2] == ("graphs", "local")]
    rewrite(replaced(local, data.draw(st.sampled_from(places_of_it)), value))
    try:
        opened = open_bundle(bundle.path)
    except BundleError as error:
        assert str(error).encode()
        return
    assert opened.head == ("local_head.weight",)
