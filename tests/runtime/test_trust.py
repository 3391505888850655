"""A device that is enrolled loads only the bundle that its server has."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import BundleError
from edgekit.line.meter import Meter
from edgekit.runtime.transport import Grpc
from edgekit.runtime.trust import check_bundle
from edgekit.server.calibrate import calibrator
from edgekit.server.door import Door
from edgekit.server.listen import serve
from edgekit.server.service import Service
from edgekit.server.setup import setup_from_bundle
from edgekit.server.train import OptimizerConfig, torch_device
from tests.enrolled import Enrolled


@pytest.fixture(scope="module")
def line(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grpc]:
    enrolled = Enrolled(tmp_path_factory.mktemp("enrolled"))
    setup = setup_from_bundle(small_bundle, torch_device("cpu"), calibrator("none", 0), OptimizerConfig(), "constant")
    listener = serve(Service(setup), "127.0.0.1:0", 4, door=Door(enrolled.folder))
    address = f"127.0.0.1:{listener.port}"
    with contextlib.closing(Grpc(address, Meter(), identity=enrolled.identity("nano"))) as transport:
        yield transport
    listener.stop(0)


def test_the_same_bundle_is_trusted(line: Grpc, small_bundle: Bundle) -> None:
    check_bundle(small_bundle, line)


def test_a_bundle_that_was_changed_together_with_its_hashes_is_not(
    line: Grpc, small_bundle: Bundle, tmp_path: Path
) -> None:
    """Whoever can write the folder can make its hashes right; they cannot make it the server's."""
    shutil.copytree(small_bundle.path, tmp_path / "bundle")
    front = tmp_path / "bundle" / "front.onnx"
    changed = front.read_bytes().replace(b"edgekit", b"EDGEKIT") + b"\x00"
    front.write_bytes(changed)
    with pytest.raises(BundleError, match="changed after export"):
        open_bundle(str(tmp_path / "bundle"))
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    manifest["files"]["front.onnx"] = {"sha256": hashlib.sha256(changed).hexdigest(), "bytes": len(changed)}
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(manifest))
    tampered = open_bundle(str(tmp_path / "bundle"))
    with pytest.raises(
        BundleError, match=f"{tampered.digest}, the server's has {small_bundle.digest}.*nothing of it was"
    ):
        check_bundle(tampered, line)
