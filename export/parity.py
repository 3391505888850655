"""Golden data: what a bundle's graphs gave where it was built, so that any engine elsewhere can be held to it."""

from typing import TYPE_CHECKING

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.runtime.registry import backend_class

if TYPE_CHECKING:
    from edgekit.export.build import FrontGraphs


def golden_arrays(
    graphs: "FrontGraphs", state: Arrays, codec: FeatureCodec, tables: Arrays, images: np.ndarray, seed: int
) -> Arrays:
    """Images, their codes in the deployed and in the training graph, a gradient at the cut, and d loss / d weight.

    Names: "image", "deployed.NAME" and "training.NAME" per code, "gradient", "gradient.WEIGHT" per front weight.
    """
    engine = backend_class("onnxruntime")
    image = np.ascontiguousarray(images, dtype=np.float32)
    feeds = codec.table_feeds(tables)
    arrays: Arrays = {"image": image}
    outputs: dict[str, Arrays] = {}
    for key in ("front", "front_train"):
        backend = engine(graphs.models[f"{key}.onnx"], graphs.specs[key])
        backend.set_weights({s.name: feeds[s.name] if s.name in feeds else state[s.name] for s in backend.graph.held})
        outputs[key] = backend.run({"image": image})
        backend.close()
    train = outputs["front_train"]
    rng = np.random.default_rng(seed)
    gradient = rng.standard_normal(train[graphs.feature].shape, dtype=np.float32)
    spec = graphs.specs["front_grad"]
    backend = engine(graphs.models["front_grad.onnx"], spec)
    backend.set_weights({s.name: state[s.name] for s in spec.held})
    given = {"image": image, "gradient": gradient}
    arrays.update(backend.run({s.name: given[s.name] if s.name in given else train[s.name] for s in spec.inputs}))
    backend.close()
    arrays["gradient"] = gradient
    for prefix, key in (("deployed", "front"), ("training", "front_train")):
        arrays.update(
            {f"{prefix}.{name}": outputs[key][name] for name in [spec.name for spec in graphs.specs["front"].outputs]}
        )
    return arrays
