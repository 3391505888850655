"""The front half by itself: what a bundle must hold, and what its batch norms learn."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from edgekit import tensorfile
from edgekit.bundle import Bundle, write_bundle
from edgekit.errors import BundleError
from edgekit.runtime.learn import FrontHalf


def test_running_statistics_follow_pytorch(small_bundle: Bundle, rng: np.random.Generator) -> None:
    front = FrontHalf(small_bundle, "onnxruntime", 1)
    norm = torch.nn.BatchNorm2d(8)
    conv = torch.nn.Conv2d(1, 8, 3, padding=1, bias=False)
    conv.weight.data = torch.from_numpy(front.state["features.0.weight"].copy())
    for _ in range(3):
        image = rng.standard_normal((5, 1, 16, 16), dtype=np.float32)
        front.forward(image)
        norm(conv(torch.from_numpy(image)))
    assert isinstance(norm.running_mean, torch.Tensor) and isinstance(norm.running_var, torch.Tensor)
    np.testing.assert_allclose(front.state["features.1.running_mean"], norm.running_mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(front.state["features.1.running_var"], norm.running_var.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("front.safetensors", "features.0.weight"),
        ("front.safetensors", "features.1.running_mean"),
        ("golden.safetensors", "image"),
        ("golden.safetensors", "deployed.codes"),
    ],
)
def test_bundle_that_lacks_an_array(small_bundle: Bundle, tmp_path: Any, file: str, name: str) -> None:
    files = {known: small_bundle.read(known) for known in small_bundle.manifest["files"]}
    arrays = tensorfile.loads(files[file])
    del arrays[name]
    content = {key: value for key, value in small_bundle.manifest.items() if key not in ("files", "format")}
    lacking = write_bundle(str(tmp_path / "b"), content, {**files, file: tensorfile.dumps(arrays)})
    with pytest.raises(BundleError, match=re.escape(name)):
        FrontHalf(lacking, "onnxruntime", 1)
