"""Bundles: written all or nothing, and every file verified."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import GRAPHS, MANIFEST, graph_from_json, open_bundle, write_bundle
from edgekit.codecs.features.sgq import SGQ
from edgekit.errors import BundleError, UsageError

NAMES = ["front.onnx", "front_train.onnx", "front_grad.onnx", "tables.safetensors", "back_train.pt2"]


def tree(folder):
    """Every file below `folder` and what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_what_is_opened(bundle, tmp_path, files, specs, tables):
    again = open_bundle(str(tmp_path / "bundle"))
    for b in (bundle, again):
        assert (b.model, b.cut, b.input_shape, b.feature_shape) == ("tiny", "relu1", (3, 8, 8), (4, 2, 2))
        assert b.classes == 3 and b.class_names == ("cat", "dog", "owl")
        assert b.codec == SGQ(groups=2, bits=4)
        assert b.graphs == specs
        assert b.feature_tensor == "feature"
        assert b.mean.tolist() == [0.5, 0.25, 0] and b.std.tolist() == [1, 0.5, 0.25]
        assert b.mean.dtype == b.std.dtype == np.float32
        assert {name: b.read(name) for name in files} == files
        tables = b.arrays("tables.safetensors")
        assert tables.keys() == tables.keys() and all(np.array_equal(tables[name], tables[name]) for name in tables)
    assert tree(tmp_path).keys() == {f"bundle/{name}" for name in [*files, MANIFEST]}


def test_the_manifest_holds_the_hash_of_every_file_and_its_own_is_the_bundles(bundle, content, files):
    raw = Path(bundle.path, MANIFEST).read_bytes()
    assert bundle.digest == hashlib.sha256(raw).hexdigest()
    manifest = json.loads(raw)
    assert manifest["format"] == 3
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    }
    assert {key: manifest[key] for key in content} == content


def test_the_digest_stands_for_the_content(bundle, tmp_path, content, files):
    assert write_bundle(str(tmp_path / "same"), content, files).digest == bundle.digest
    for name in files:
        assert (
            write_bundle(str(tmp_path / f"{name}-2"), content, {**files, name: files[name] + b"x"}).digest
            != bundle.digest
        )
    other = {**content, "feature_tensor": "codes"}
    assert write_bundle(str(tmp_path / "other"), other, files).digest != bundle.digest


@pytest.mark.parametrize("name", [*NAMES, MANIFEST])
def test_a_missing_file_is_named(bundle, name):
    os.remove(os.path.join(bundle.path, name))
    with pytest.raises(
        BundleError, match="No such file" if name != MANIFEST else "is no bundle: No such file"
    ) as caught:
        open_bundle(bundle.path)
    assert (name if name != MANIFEST else bundle.path) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer"])
def test_a_damaged_file_is_named(bundle, name, damage, files):
    data = files[name]
    wrong = {"flipped": bytes([data[0] ^ 1]) + data[1:], "truncated": data[:-1], "longer": data + b"\0"}[damage]
    with open(os.path.join(bundle.path, name), "wb") as file:
        file.write(wrong)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle.path)
    message = str(caught.value)
    assert os.path.join(bundle.path, name) in message and "transfer it again" in message
    assert hashlib.sha256(wrong).hexdigest() in message and hashlib.sha256(data).hexdigest() in message
    with pytest.raises(BundleError):
        bundle.read(name)  # also where it was opened before


def test_a_file_that_is_a_folder_is_named(bundle):
    os.remove(os.path.join(bundle.path, "front.onnx"))
    os.mkdir(os.path.join(bundle.path, "front.onnx"))
    with pytest.raises(BundleError, match=r"front.onnx"):
        open_bundle(bundle.path)


def test_a_file_that_is_not_listed_is_refused(bundle):
    with pytest.raises(BundleError, match=r"has no file 'front.trt', it has back_train.pt2, front.onnx"):
        bundle.read("front.trt")


def test_a_safetensors_file_that_is_none_is_named(tmp_path, content, files):
    bundle = write_bundle(str(tmp_path / "b"), content, {**files, "tables.safetensors": b"pickle"})
    with pytest.raises(BundleError, match=r"tables.safetensors: safetensors file of 6 B"):
        bundle.arrays("tables.safetensors")


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_when_writing_fails(tmp_path, monkeypatch, overwrite, content, files):
    if overwrite:
        write_bundle(str(tmp_path / "bundle"), content, files)
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="'model'"):
        write_bundle(str(tmp_path / "bundle"), {"feature": [1, 1, 1]}, files, overwrite)
    assert tree(tmp_path) == before
    really, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if target == str(tmp_path / "bundle") and len(calls) < 3:
            raise OSError(28, "No space left on device")
        really(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(BundleError, match=r"cannot be written: .*No space left on device; nothing was changed"):
        write_bundle(str(tmp_path / "bundle"), content, {**files, "more": b"x"}, overwrite)
    assert tree(tmp_path) == before and os.listdir(tmp_path) == (["bundle"] if overwrite else [])
    assert len(calls) == (3 if overwrite else 1)  # away, in its place, and back


def test_an_interrupted_write_leaves_the_old_bundle(bundle, tmp_path, monkeypatch, content, files):
    before = tree(tmp_path)
    really = os.replace

    def replace(source, target):
        really(source, target)
        if target.endswith("old"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(bundle.path, content, {**files, "more": b"x"}, overwrite=True)
    assert tree(tmp_path) == before and os.listdir(tmp_path) == ["bundle"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, content, files):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(str(tmp_path / "file" / "bundle"), content, files)


def test_missing_folders_above_are_made(tmp_path, content, files):
    assert write_bundle(str(tmp_path / "a" / "b"), content, files).path == str(tmp_path / "a" / "b")


def test_an_existing_bundle_is_replaced_only_when_asked(bundle, tmp_path, content, files):
    changed = {**files, "front.onnx": b"another"}
    with pytest.raises(UsageError, match="bundle exists: choose another folder or pass --force"):
        write_bundle(bundle.path, content, changed)
    assert open_bundle(bundle.path).digest == bundle.digest
    again = write_bundle(bundle.path, content, {name: changed[name] for name in list(changed)[:-1]}, overwrite=True)
    assert again.digest != bundle.digest and again.read("front.onnx") == b"another"
    assert "back_train.pt2" not in os.listdir(bundle.path) and os.listdir(tmp_path) == ["bundle"]


def test_a_damaged_bundle_may_be_replaced(bundle, content, files):
    os.remove(os.path.join(bundle.path, "front.onnx"))
    assert write_bundle(bundle.path, content, files, overwrite=True).digest == bundle.digest


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"notes.txt": b"mine"},
        {MANIFEST: b'{"name": "a web page"}'},
        {MANIFEST: b"no json"},
        {MANIFEST: b'{"files": {}}', "notes.txt": b"mine"},
    ],
    ids=["empty", "files", "other manifest", "no manifest", "bundle and files"],
)
def test_a_folder_that_is_more_than_a_bundle_is_never_replaced(tmp_path, content, files):
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match="is no bundle or holds other files too: choose another folder"):
        write_bundle(str(tmp_path), content, files, overwrite=True)
    assert tree(tmp_path) == content


def test_a_file_is_never_replaced(tmp_path, content, files):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is no bundle"):
        write_bundle(str(tmp_path / "file"), content, files, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_behind_a_link_the_folder_is_replaced_and_the_link_stays(bundle, tmp_path, content, files):
    (tmp_path / "latest").symlink_to("bundle")
    again = write_bundle(str(tmp_path / "latest"), content, {**files, "front.onnx": b"another"}, overwrite=True)
    assert (tmp_path / "latest").is_symlink() and again.digest != bundle.digest
    assert open_bundle(bundle.path).digest == open_bundle(str(tmp_path / "latest")).digest == again.digest


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_to_json_and_back(name, specs):
    assert graph_from_json(json.loads(json.dumps(specs[name].to_json()))) == specs[name]
