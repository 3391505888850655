"""Golden data: what a bundle's graphs computed where it was exported, and what they compute on another engine."""

from typing import TYPE_CHECKING

import numpy as np

from edgekit.bundle import LOCAL, Bundle, GraphSpec
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.errors import BundleError
from edgekit.runtime.backends.registry import backend_class
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.local_loss import one_hot

if TYPE_CHECKING:  # what checks a bundle needs no torch, which takes seconds to import
    from edgekit.export.graphs import FrontGraphs

#: The engine that golden data comes from.
GOLDEN_BACKEND = "onnxruntime"


def golden_arrays(graphs: "FrontGraphs", codec: FeatureCodec, tables: Arrays, images: np.ndarray, seed: int) -> Arrays:
    """Images, their codes in the deployed and in the training graph, a gradient at the cut, and d loss / d weight.

    Names: "image", "deployed.NAME" and "training.NAME" per code, "gradient", "gradient.WEIGHT" per front weight. With a
    local head also "labels", one-hot, the classes one after another, and "local.NAME" per output of its graph.
    Of `images` no more are taken than a deployed graph of static batch does.
    """
    size = graphs.specs["front"].inputs[0].shape[0]
    image = np.ascontiguousarray(images[: size if size > 0 else None], dtype=np.float32)
    held = {**graphs.state, **graphs.head, **codec.table_feeds(tables)}

    def run(key: str, feeds: Arrays) -> Arrays:
        return run_graph(graphs.models[f"{key}.onnx"], graphs.specs[key], held, feeds)

    deployed = run("front", {"image": image})
    train = run("front_train", {"image": image})
    gradient = np.random.default_rng(seed).standard_normal(train[graphs.feature].shape, dtype=np.float32)
    codes = [spec.name for spec in graphs.specs["front"].outputs]
    local = {}
    if LOCAL in graphs.specs:
        classes = next(spec for spec in graphs.specs[LOCAL].inputs if spec.name == "labels").shape[1]
        labels = one_hot(np.arange(len(image)) % classes, classes)
        computed = run(LOCAL, {"feature": train[graphs.feature], "labels": labels})
        local = {"labels": labels, **{f"local.{name}": array for name, array in computed.items()}}
    return {
        "image": image,
        "gradient": gradient,
        **{f"deployed.{name}": deployed[name] for name in codes},
        **{f"training.{name}": train[name] for name in codes},
        **run("front_grad", {**train, "image": image, "gradient": gradient}),
        **local,
    }


def run_graph(model: bytes, spec: GraphSpec, held: Arrays, feeds: Arrays) -> Arrays:
    """Outputs of `model` in ONNX Runtime; of `held` and `feeds` it takes what it declares."""
    backend = backend_class(GOLDEN_BACKEND)(model, spec)
    backend.set_weights({s.name: held[s.name] for s in spec.held})
    outputs = backend.run_batch({s.name: feeds[s.name] for s in spec.inputs})
    backend.close()
    return outputs


class _Unjudged(FrontHalf):
    """A front half that opens without comparing itself with the golden data: whoever calls `rerun` does that."""

    def _compare(self, expected: Arrays, what: str, meaning: str) -> None:
        return None


def rerun(bundle: Bundle, backend_id: str) -> tuple[Arrays, Arrays]:
    """The golden data of `bundle`, and what backend `backend_id` gives for it as a device would, under the same names.

    The second also has "feature", coded in the training graph. BundleError when the golden data is incomplete.
    """
    golden = bundle.arrays("golden.safetensors")
    codes = [spec.name for spec in bundle.graphs["front"].outputs]
    names = {"image", "gradient", *(f"{prefix}.{name}" for prefix in ("deployed", "training") for name in codes)}
    names |= {spec.name for spec in bundle.graphs["front_grad"].outputs}
    if LOCAL in bundle.graphs:
        names |= {"labels", *(f"local.{spec.name}" for spec in bundle.graphs[LOCAL].outputs)}
    if not names <= set(golden):
        raise BundleError(f"{bundle.path}: golden.safetensors lacks {sorted(names - set(golden))}: export it again")
    image = golden["image"]
    if image.shape[1:] != bundle.input_shape or not len(image):
        expected = f"at least one of {list(bundle.input_shape)}"
        raise BundleError(f"{bundle.path}: golden images are {list(image.shape)}, expected {expected}: export it again")
    front = _Unjudged(bundle, backend_id, threads=1)
    # An engine may write its next outputs where the last ones are.
    again = {f"deployed.{name}": array.copy() for name, array in front.encode(image).items()}
    forward = front.forward(image)
    again.update({f"training.{name}": array.copy() for name, array in forward.codes.items()})
    again["feature"] = forward.feature.copy()
    gradients = front.backward(forward, golden["gradient"])
    again.update({f"gradient.{name}": array.copy() for name, array in gradients.items()})
    if LOCAL in bundle.graphs:
        front.open_local()
        computed = front.passes.local(forward.kept, golden["labels"])
        again.update({f"local.{name}": array for name, array in computed.items()})
    front.close()
    for name in names - {"image", "gradient", "labels"}:
        was, now = (f"{arrays[name].dtype} {list(arrays[name].shape)}" for arrays in (golden, again))
        if was != now:
            raise BundleError(f"{bundle.path}: golden '{name}' is {was}, the graph gives {now}: export it again")
    return golden, again
