"""The bundle: the folder that `edgekit export` writes and that server and devices open.

::

    manifest.json        format version, model, cut, codec, graphs, normalisation, sha256 and size of every file
    front.onnx           image -> codes, batch norm folded into convolutions: what is deployed
    front_train.onnx     image -> codes, coded feature, saved activations, batch statistics
    front_grad.onnx      saved activations, gradient at the cut -> gradient of every front weight
    local.onnx           coded feature, labels -> loss of a small head on the device, and its gradients; may be left out
    front.safetensors    front weights and batch-norm buffers
    local.safetensors    the head's weights, where there is local.onnx
    tables.safetensors   the codec's tables (codebook, order of channels)
    back_train.pt2       back half as a torch.export program, training mode
    back_eval.pt2        the same in evaluation mode
    back.safetensors     weights and buffers of both programs
    golden.safetensors   an input, its codes and its gradients, for parity checks after every build

The bundle's hash is the sha256 of manifest.json, which holds the hash of every other file. No file is a pickle.
"""

import hashlib
import json
import os
import tempfile
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edgekit import tensorfile
from edgekit.class_names import class_names_error
from edgekit.codecs.base import FeatureCodec
from edgekit.codecs.registry import feature_codec
from edgekit.errors import BundleError, EdgekitError, PayloadError, ShapeError, UsageError
from edgekit.folding import fold_from_json
from edgekit.providers import CPU, PROVIDERS
from edgekit.tensors import TensorSpec, spec_from_json

FORMAT = 3
MANIFEST = "manifest.json"
GRAPHS = ("front", "front_train", "front_grad")
#: The graph of the local loss, which older bundles lack, and others that were exported without.
LOCAL = "local"
#: What the names of the local head's weights begin with, beside those of the front half.
HEAD = "local_head."
#: The fields of a graph that list tensors.
SPECS = ("inputs", "held", "constants", "outputs")


class GraphSpec(NamedTuple):
    """One ONNX graph of a bundle.

    `inputs` are fed at every run; `held` are inputs that keep their value between runs (weights, codebooks);
    `constants` are initialisers that a backend can replace (a new session, a refit). `outputs` come back. `ordered`
    names the constants whose first axis, the feature's channels, is in the codec's order, not in the network's.
    """

    file: str
    inputs: Tuple[TensorSpec, ...]
    held: Tuple[TensorSpec, ...]
    constants: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    ordered: Tuple[str, ...] = ()

    def to_json(self) -> Dict[str, Any]:
        fields = {key: [spec.to_json() for spec in getattr(self, key)] for key in SPECS}
        return dict(fields, file=self.file, ordered=list(self.ordered))


def graph_from_json(value: Dict[str, Any]) -> GraphSpec:
    """Inverse of `GraphSpec.to_json`; KeyError, TypeError or ValueError on a value that it never gives."""
    specs: List[Tuple[TensorSpec, ...]] = [tuple(spec_from_json(spec) for spec in value[key]) for key in SPECS]
    ordered = tuple(_text(name) for name in value["ordered"])
    if not set(ordered) <= {spec.name for spec in specs[2]}:
        raise ValueError("ordered: {} are not all constants".format(ordered))
    return GraphSpec(_text(value["file"]), specs[0], specs[1], specs[2], specs[3], ordered)


class Bundle:
    """An opened bundle, its hashes verified; files are read when they are asked for."""

    def __init__(self, path: str, manifest: Dict[str, Any], digest: str) -> None:
        self.path = path
        self.manifest = manifest
        #: sha256 of the manifest, hex: the identity that device and server compare.
        self.digest = digest
        try:
            model = manifest["model"]
            self.model = _text(model["name"])
            self.cut = _text(model["cut"])
            self.input_shape = _shape3(model["input"])
            (self.classes,) = _counts([model["classes"]])
            #: Their names, in the order of labels; () where the export was not told them.
            self.class_names: Tuple[str, ...] = ()
            if "class_names" in model:
                self.class_names = _class_names(model["class_names"], self.classes)
            #: Whether the feature comes from a ReLU: where it is zero, no gradient passes.
            self.after_relu: bool = {True: True, False: False}[manifest["after_relu"]]
            self.feature_shape = _shape3(manifest["feature"])
            self.codec: FeatureCodec = feature_codec(manifest["codec"]["id"], manifest["codec"]["config"])
            self.codec.check(self.feature_shape[0])
            #: The gradient codec of a server that is not told another; None when the export chose none.
            self.gradient: Optional[str] = _text(manifest["gradient"]) if "gradient" in manifest else None
            self.graphs = {name: graph_from_json(manifest["graphs"][name]) for name in GRAPHS}
            #: Names of the local head's weights; () in a bundle without the graph `LOCAL`.
            self.head: Tuple[str, ...] = ()
            if LOCAL in manifest["graphs"]:
                self.graphs[LOCAL] = graph_from_json(manifest["graphs"][LOCAL])
                self.head = _head(self.graphs[LOCAL], self.feature_shape, self.classes)
            self.mean = _per_channel(manifest["normalise"]["mean"], self.input_shape[0], smallest=-1e6)
            self.std = _per_channel(manifest["normalise"]["std"], self.input_shape[0], smallest=1e-6)
            #: Name of the coded feature among the outputs of the graph "front_train".
            self.feature_tensor = _text(manifest["feature_tensor"])
            #: The batch norms that are folded into convolutions in the deployed graph.
            self.folds = [fold_from_json(value) for value in manifest["folds"]]
            #: The device profile. `norm` is what batch norm does while the front half learns: "batch" or "frozen".
            self.device: Dict[str, Any] = dict(manifest["device"])
            _text(self.device["name"])
            self.norm = {"batch": "batch", "frozen": "frozen"}[manifest["norm"]]
            #: The provider (edgekit/providers.py) whose form the graphs that learn have, "cpu" in older bundles; which
            #: one the board wants, and why it is another, "" where it is that.
            self.provider, self.wanted_provider = (
                {name: name for name in PROVIDERS}[manifest.get(key, manifest.get("provider", CPU))]
                for key in ("provider", "wanted_provider")
            )
            self.provider_reason = _text(manifest.get("provider_reason", ""))
            handed_out = {spec.name for spec in self.graphs["front_train"].outputs}
            for norm in manifest["batch_norms"]:
                _check_batch_norm(norm)
                handed_out.remove(norm["batch_mean"])
                handed_out.remove(norm["batch_var"])
            handed_out.remove(self.feature_tensor)
            weights = [spec.name[len("gradient.") :] for spec in self.graphs["front_grad"].outputs]
            statistics = [norm[key] for norm in manifest["batch_norms"] for key in ("running_mean", "running_var")]
            #: Names of what learns in the front half: its weights, but for frozen ones, and batch norms' statistics.
            self.learned: Tuple[str, ...] = (*weights, *statistics)
            for spec in self.graphs["front"].constants:
                if spec.name in self.graphs["front"].ordered and spec.shape[:1] != self.feature_shape[:1]:
                    raise ValueError("'{}' has other channels than the feature".format(spec.name))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                "{} does not describe a bundle: {!r}".format(os.path.join(path, MANIFEST), error)
            ) from None

    def read(self, name: str) -> bytes:
        """The bytes of file `name`, verified again; BundleError when the manifest lists no such file."""
        files = self.manifest["files"]
        if name not in files:
            raise BundleError("{} has no file '{}', it has {}".format(self.path, name, ", ".join(sorted(files))))
        return _verified(self.path, name, files[name])

    def arrays(self, name: str) -> Dict[str, np.ndarray]:
        """The arrays of the safetensors file `name`."""
        try:
            return tensorfile.loads(self.read(name))
        except PayloadError as error:
            raise BundleError("{}: {}".format(os.path.join(self.path, name), error)) from None

    def head_weights(self) -> Dict[str, np.ndarray]:
        """The local head's weights, by the names in `head`; BundleError when the file has others."""
        weights = self.arrays("local.safetensors")
        if sorted(weights) != sorted(self.head):
            told = "{}: local.safetensors has {}, expected {}: export it again"
            raise BundleError(told.format(self.path, sorted(weights), sorted(self.head)))
        return {name: weights[name] for name in self.head}

    def tables(self) -> Dict[str, np.ndarray]:
        """The codec's tables; BundleError when they do not fit the codec."""
        tables = self.arrays("tables.safetensors")
        try:
            self.codec.check_tables(self.feature_shape[0], tables)
        except ShapeError as error:
            raise BundleError("{}: {}".format(os.path.join(self.path, "tables.safetensors"), error)) from None
        return tables


def open_bundle(path: str) -> Bundle:
    """The bundle at `path`, the hash of every file verified; BundleError names the first that is wrong."""
    target = os.path.join(path, MANIFEST)
    try:
        with open(target, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise BundleError(
            "{} is no bundle: {}; `edgekit export MODEL -o DIR` writes one".format(path, error.strerror)
        ) from None
    try:
        manifest = json.loads(raw.decode())
        if manifest["format"] != FORMAT:
            told = "{}: bundle format {}, this version reads {}: export it again"
            raise BundleError(told.format(target, manifest["format"], FORMAT))
        for name, entry in sorted(manifest["files"].items()):
            _verified(path, name, entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, EdgekitError):
            raise
        raise BundleError("{} does not parse: {!r}".format(target, error)) from None
    return Bundle(path, manifest, hashlib.sha256(raw).hexdigest())


def check_writable(path: str, overwrite: bool) -> None:
    """Raises UsageError when `path` exists and `write_bundle` would not replace it."""
    path = os.path.realpath(path)
    if os.path.exists(path) and not (overwrite and _replaceable(path)):
        told = "{} exists and is no bundle or holds other files too: choose another folder"
        if not overwrite:
            told = "{} exists: choose another folder or pass --force"
        raise UsageError(told.format(path))


def write_bundle(path: str, manifest: Dict[str, Any], files: Dict[str, bytes], overwrite: bool = False) -> Bundle:
    """The bundle that it writes to the folder `path`, whole or not at all.

    It adds "format" and "files" to `manifest`. An existing folder is replaced only with `overwrite`,
    and only when it is a bundle and holds nothing else. BundleError when the manifest describes none or the disk fails.
    """
    check_writable(path, overwrite)
    path = os.path.realpath(path)
    hashes = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    text = json.dumps(dict(manifest, format=FORMAT, files=hashes), indent=1, sort_keys=True) + "\n"
    Bundle(path, json.loads(text), "")  # refuses a manifest that could not be opened again, before anything is written
    try:
        _write_folder(path, dict(files, **{MANIFEST: text.encode()}))
    except OSError as error:
        raise BundleError("{} cannot be written: {}; nothing was changed".format(path, error)) from None
    return open_bundle(path)


def _write_folder(path: str, files: Dict[str, bytes]) -> None:
    """Makes a folder with exactly `files` at `path`; an old one stays until the new one is complete."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=os.path.dirname(path)) as staging:
        new, old = os.path.join(staging, "new"), os.path.join(staging, "old")
        os.mkdir(new)
        for name, data in files.items():
            with open(os.path.join(new, _file_name(name)), "wb") as file:
                file.write(data)
        try:
            if os.path.exists(path):
                os.replace(path, old)
            os.replace(new, path)
        except BaseException:
            if os.path.exists(old) and not os.path.exists(path):
                os.replace(old, path)
            raise


def _replaceable(path: str) -> bool:
    """Whether the folder at `path` holds a bundle and nothing else, so that replacing it loses no other file."""
    try:
        with open(os.path.join(path, MANIFEST), "rb") as file:
            listed = set(json.loads(file.read().decode())["files"])
        return set(os.listdir(path)) <= listed | {MANIFEST}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _verified(path: str, name: str, entry: Dict[str, Any]) -> bytes:
    target = os.path.join(path, _file_name(name))
    try:
        with open(target, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BundleError("{}: {}; export or transfer the bundle again".format(target, error.strerror)) from None
    digest = hashlib.sha256(data).hexdigest()
    if (digest, len(data)) != (entry["sha256"], entry["bytes"]):
        told = "{}: sha256 {} ({} B), expected {} ({} B): the file changed after export, transfer it again"
        raise BundleError(told.format(target, digest, len(data), entry["sha256"], entry["bytes"]))
    return data


def _file_name(name: str) -> str:
    if os.path.basename(name) != name or name in ("", os.curdir, os.pardir) or not name.isprintable():
        raise BundleError("{!r} is no name of a file in a bundle: it leaves the folder or cannot be shown".format(name))
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("{!r} is no printable text".format(value))
    return value


def _head(graph: GraphSpec, feature: Tuple[int, int, int], classes: int) -> Tuple[str, ...]:
    """Names of the weights that a graph of a local loss gives gradients of; ValueError for any other graph."""
    taken = {spec.name: spec for spec in graph.inputs}
    given = {spec.name: spec for spec in graph.outputs}
    held = {spec.name: spec for spec in graph.held}
    at_cut = TensorSpec("feature", "float32", (-1, *feature))
    labels = TensorSpec("labels", "float32", (-1, classes))
    loss = TensorSpec("loss", "float32", (1,))
    if taken != {spec.name: spec for spec in (at_cut, labels)} or graph.constants:
        raise ValueError("graph '{}' takes {}, expected feature and labels".format(LOCAL, graph.inputs))
    if given.pop("loss", None) != loss or given.pop("gradient", None) != at_cut._replace(name="gradient"):
        raise ValueError("graph '{}' gives no loss, or no gradient at the feature".format(LOCAL))
    names = tuple(name[len("gradient.") :] for name in given if name.startswith("gradient."))
    own = [n for n in names if n.startswith(HEAD) and held.get(n) == given["gradient." + n]._replace(name=n)]
    if not own or len(own) != len(given):
        raise ValueError("graph '{}' gives {}, expected a gradient of weights it holds".format(LOCAL, sorted(given)))
    return names


def _counts(value: Any) -> List[int]:
    if not isinstance(value, list) or any(type(d) is not int or not 0 < d < 1 << 31 for d in value):
        raise ValueError("{!r} is not made of counts".format(value))
    return value


def _class_names(value: Any, classes: int) -> Tuple[str, ...]:
    error = class_names_error(value, classes)
    if error is not None:
        raise ValueError(error)
    return tuple(value)


def _shape3(value: Any) -> Tuple[int, int, int]:
    a, b, c = _counts(value)
    return a, b, c


def _per_channel(value: Any, channels: int, smallest: float) -> np.ndarray:
    """(channels,) f32 from a list of numbers, none of them below `smallest`."""
    if not isinstance(value, list) or len(value) != channels:
        raise ValueError("{!r} is not one number for each of {} channels".format(value, channels))
    if any(type(v) not in (int, float) or not smallest <= v <= 1e6 for v in value):
        raise ValueError("{!r} is not made of numbers from {} to 1e6".format(value, smallest))
    return np.array(value, dtype=np.float32)


def _check_batch_norm(norm: Dict[str, Any]) -> None:
    for key in ("running_mean", "running_var", "batch_mean", "batch_var"):
        _text(norm[key])
    _counts([norm["positions"]])
    if type(norm["momentum"]) not in (int, float) or not 0 <= norm["momentum"] <= 1:
        raise ValueError("momentum {!r} is not in 0..1".format(norm["momentum"]))
