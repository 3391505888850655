"""Pairs of halves in a folder: the last one always, the best one when it is that."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import kept as kept_module
from edgekit import tensorfile
from edgekit.class_names import said_in
from edgekit.codecs.base import Arrays
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.errors import UsageError
from edgekit.kept import BEST
from edgekit.line.frame import Message
from edgekit.server.pairs import Pairs
from edgekit.server.policy import Every, RoundPolicy
from edgekit.server.service import AT_ONCE, Service
from tests.server.talk import TABLES, feature, hello


def arrays(value: float) -> Arrays:
    return {"weight": np.array([value], np.float32)}


def kept(folder: Path) -> dict[str, float]:
    """File -> the value in it."""
    return {path.stem: float(tensorfile.loads(path.read_bytes())["weight"][0]) for path in folder.glob("*.safetensors")}


def test_the_last_pair_and_the_best_one(tmp_path: Path) -> None:
    pairs = Pairs(str(tmp_path / "out"))
    assert kept(tmp_path / "out" / BEST) == {}
    for value, best in ((1.0, True), (2.0, True), (3.0, False)):
        pairs.keep(arrays(value), arrays(-value), arrays(10 * value), best)
    assert kept(tmp_path / "out") == {"back": 3.0, "front": -3.0, "tables": 30.0}
    assert kept(tmp_path / "out" / BEST) == {"back": 2.0, "front": -2.0, "tables": 20.0}


def test_front_halves_that_are_not_in_step_are_the_devices_own(tmp_path: Path) -> None:
    Pairs(str(tmp_path)).keep(arrays(1.0), None, arrays(2.0), best=True)
    assert kept(tmp_path) == kept(tmp_path / BEST) == {"back": 1.0}


def test_the_back_half_says_the_names_of_the_classes(tmp_path: Path) -> None:
    Pairs(str(tmp_path), ["cat", "dog"]).keep(arrays(1.0), arrays(1.0), arrays(2.0), best=False)
    said = {file.stem: said_in(tensorfile.metadata(file.read_bytes())) for file in tmp_path.glob("*.safetensors")}
    assert said == {"back": ("cat", "dog"), "front": (), "tables": ()}


def test_a_folder_that_cannot_be_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(UsageError, match="cannot be a folder"):
        Pairs(str(tmp_path / "file"))


def kept_names(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("*.safetensors")]


class TestService:
    """When a service keeps them."""

    def test_after_every_test(self, make: Callable[..., Service], tmp_path: Path) -> None:
        front = {"weight": np.array([1], np.float32), "count": np.array(3)}
        policy = RoundPolicy(Every(epochs=1), FedAvg())
        service = Service(
            make().setup._replace(front=front, learned=("weight",)), rounds=policy, pairs=Pairs(str(tmp_path))
        )
        session, found, step = hello(service), [], 0
        for _ in range(12):
            for _ in range(3):
                assert service.handle(feature(session, step)).kind == "gradient"
                step += 1
            assert service.handle(feature(session, 0, kind="evaluate")).kind == "result"
            tally = service.handle(Message("tested", session, step))
            found.append((tally.header["right"], tally.header["best"]))
            last = tensorfile.loads((tmp_path / "back.safetensors").read_bytes())
            best = tensorfile.loads((tmp_path / BEST / "back.safetensors").read_bytes())
            for name, array in service.setup.back.state_dict().items():
                np.testing.assert_array_equal(last[name], array)
            same = all(np.array_equal(best[name], last[name]) for name in last)
            assert same == tally.header["best"]
        counts = [right for right, _ in found]
        assert [best for _, best in found] == [right > max(counts[:n], default=-1) for n, right in enumerate(counts)]
        assert {best for _, best in found} == {True, False}
        kept_front, tables = (
            tensorfile.loads((tmp_path / f"{name}.safetensors").read_bytes()) for name in ("front", "tables")
        )
        assert set(kept_front) == set(front) and kept_front["count"] == 3
        np.testing.assert_array_equal(tables["codebook"], TABLES["codebook"])

    @pytest.mark.parametrize("every", [None, 1], ids=["alone", "in step"])
    def test_without_a_test_too_when_the_last_is_long_ago(
        self, make: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None
    ) -> None:
        monkeypatch.setattr(kept_module, "EVERY_S", 0.0)
        policy = RoundPolicy(Every(epochs=every or 0), FedAvg())
        service = Service(make().setup, rounds=policy, pairs=Pairs(str(tmp_path)))
        session = hello(service)
        for step in range(2):
            assert service.handle(feature(session, step)).kind == "gradient"
        # Where front halves are in step the two are a pair only just after a round.
        assert sorted(kept_names(tmp_path)) == ([] if every else ["back"])
        update = Message("update", session, 0, {"n": 24, "left": 0, "test": False}, (b"",))
        assert service.handle(update).kind == "weights"
        assert sorted(kept_names(tmp_path)) == (["back", "front", "tables"] if every else ["back"])

    def test_a_full_disk_ends_no_training(
        self, make: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[dict[str, Any]] = []
        service = Service(make().setup, pairs=Pairs(str(tmp_path)), on_event=told.append)

        def full(number: int) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(os, "fsync", full)
        session = hello(service)
        service.handle(feature(session, 0, kind="evaluate"))
        assert service.handle(Message("tested", session, 1)).kind == "tally"
        (event,) = (event for event in told if event["event"] == "not_kept")
        assert "No space left on device" in event["reason"] and kept_names(tmp_path) == []
        with pytest.raises(UsageError, match="No space left"):
            service.keep_last()

    def test_a_test_of_no_images_is_not_the_best(self, make: Callable[..., Service], tmp_path: Path) -> None:
        service = Service(make().setup, pairs=Pairs(str(tmp_path)))
        reply = service.handle(Message("tested", hello(service), 1))
        assert (reply.header["n"], reply.header["best"]) == (0, False) and not list((tmp_path / BEST).iterdir())

    def test_counts_begin_anew_with_every_test(self, make: Callable[..., Service]) -> None:
        service = make()
        session = hello(service)
        for images in (24, 12):
            for _ in range(images // 12):
                service.handle(feature(session, 0, kind="evaluate"))
            assert service.handle(Message("tested", session, 1)).header["n"] == images

    def test_a_test_that_ends_without_a_device(self, make: Callable[..., Service]) -> None:
        service, told = Service(make().setup, patience=AT_ONCE._replace(test_s=0.05)), list[dict[str, Any]]()
        first, second = hello(service), hello(service)
        service.on_event = told.append
        for session in (first, second):
            reply = service.handle(Message("update", session, 0, {"n": 0, "left": 0, "test": True}, (b"",)))
            assert reply.kind == "weights"
        service.handle(feature(second, 0, kind="evaluate"))
        service.handle(feature(first, 0, kind="evaluate"))
        tally = service.handle(Message("tested", first, 1))
        assert tally.header["n"] == 12 and tally.header["best"], "the second says nothing"
        service.handle(feature(second, 1, kind="evaluate"))
        assert service.handle(Message("tested", second, 2)) == tally._replace(session=second, step=2)
        assert [(event["devices"], event["images"]) for event in told] == [(1, 12)], "what came too late is no test"
        assert service.handle(Message("tested", second, 3)).header["n"] == 0, "nor is it counted in the next"

    def test_at_the_end(self, make: Callable[..., Service], tmp_path: Path) -> None:
        service = Service(make().setup, pairs=Pairs(str(tmp_path)))
        service.keep_last()
        assert [path.name for path in tmp_path.glob("*.safetensors")] == ["back.safetensors"]
        make().keep_last()
