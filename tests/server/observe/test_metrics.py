"""A status in Prometheus' text format, read back by Prometheus' own parser."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from edgekit.server.observe.metrics import CLASSES, Metrics
from edgekit.server.observe.sight import Seen, Sight
from edgekit.server.observe.status import Status, looker
from edgekit.server.service import Service
from tests.server.talk import CODEC, feature, hello

PAGE = Path(__file__).parents[3] / "docs" / "watching.md"


def read(look: Callable[[], Status]) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(Metrics(look).text().decode())}


def value(found: dict[str, Metric], name: str, sample: str = "", **labels: str) -> float:
    (only,) = [each.value for each in found[name].samples if each.labels == labels and each.name == (sample or name)]
    number: float = only
    return number


@pytest.fixture
def look(make: Callable[..., Service]) -> Callable[[], Status]:
    """A status with a value in every field."""
    service = make()
    sight = Sight(CODEC, 64)
    service.on_event, service.steps.on_batch = sight.event, sight.batch
    session = hello(service, "a")
    for step in range(2):
        assert service.handle(feature(session, step)).kind == "gradient"
    sight.event({"event": "tested", "epoch": 1, "accuracy": 75.0, "test_loss": 0.5})
    base = looker(service, sight, "abcd", 3)

    def status() -> Status:
        messages = [{"direction": "up", "kind": "feature", "frames": 2, "bytes": 900}]
        made = {**base(), "messages": messages, "errors": {"10": 4, "9": 1}}
        made["devices"][0]["heard"] = 1.5e9
        return made

    return status


def test_values_are_those_of_the_status(look: Callable[[], Status]) -> None:
    found, status = read(look), look()
    assert value(found, "edgekit_steps") == value(found, "edgekit_batches", "edgekit_batches_total") == 2
    assert value(found, "edgekit_images", "edgekit_images_total") == 24
    assert value(found, "edgekit_progress_ratio") == status["progress"]
    assert value(found, "edgekit_test_accuracy_ratio") == 0.75 and value(found, "edgekit_test_loss") == 0.5
    assert value(found, "edgekit_learning_rate") == pytest.approx(0.1)
    assert value(found, "edgekit_devices", state="training") == 1 and value(found, "edgekit_devices", state="away") == 0
    assert value(found, "edgekit_expected_devices") == 3
    assert value(found, "edgekit_messages", "edgekit_messages_total", direction="up", kind="feature") == 2
    assert value(found, "edgekit_message_bytes", "edgekit_message_bytes_total", direction="up", kind="feature") == 900
    assert value(found, "edgekit_errors", "edgekit_errors_total", code="10", error="Refused") == 4
    assert value(found, "edgekit_errors", "edgekit_errors_total", code="9", error="TransportError") == 1
    assert value(found, "edgekit_device_images", "edgekit_device_images_total", device="a") == 24
    assert 0 < value(found, "edgekit_device_codebook_used_ratio", device="a") <= 1
    assert value(found, "edgekit_device_last_message_timestamp_seconds", device="a") == 1.5e9
    assert value(found, "edgekit_batch_seconds", "edgekit_batch_seconds_count", part="waiting") == 2
    train = status["seconds"]["train"]["sum"]
    assert value(found, "edgekit_batch_seconds", "edgekit_batch_seconds_sum", part="train") == pytest.approx(train)
    assert found["edgekit_run_info"].samples[0].labels["run"] == "abcd"
    assert value(found, "process_resident_memory_bytes") > 1e6


def test_names_are_as_prometheus_wants_them_and_are_on_the_page(look: Callable[[], Status]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = [family for name, family in read(look).items() if not name.startswith("process_")]
    assert len(found) > 25
    for family in found:
        assert re.fullmatch(r"edgekit_[a-z_]+", family.name) and family.documentation.endswith(".")
        # A counter ends in _total, and nothing else does.
        names = {sample.name for sample in family.samples}
        assert all(name.endswith("_total") for name in names) == (family.type == "counter"), family
        shown = f"{family.name}_total" if family.type == "counter" else family.name

        assert f"`{shown}`" in text, shown


def test_what_is_not_known_is_left_out(look: Callable[[], Status]) -> None:
    empty = dict.fromkeys(("loss", "rate", "last_step", "tested", "devices_expected"))
    found = read(lambda: {**look(), **empty, "devices": []})
    for name in ("edgekit_loss", "edgekit_learning_rate", "edgekit_test_accuracy_ratio", "edgekit_expected_devices"):
        assert name not in found
    assert found["edgekit_device_images"].samples == []


NAMES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x24F) | st.sampled_from('"\\\n{}=,'), min_size=1, max_size=64
)


@given(st.lists(NAMES, unique=True, max_size=4))
def test_any_name_of_a_device_is_a_label(names: list[str]) -> None:
    device: dict[str, Any] = {**Seen().told(), "state": "training", "behind": 0, "tables": 0}
    found = read(lambda: {**EMPTY, "devices": [{**device, "name": name} for name in names]})
    assert [sample.labels["device"] for sample in found["edgekit_device_step"].samples] == names


EMPTY: Status = {
    "run": "", "bundle": "", "edgekit": "", "steps": 0, "steps_without_some": 0, "rounds": 0, "late_updates": 0,
    "batches": 0, "batches_left_out": 0, "images": 0, "images_right": 0, "progress": 0.0, "loss": None, "rate": None,
    "last_step": None, "began": 0.0, "devices_expected": None, "states": {}, "events": {}, "tested": None,
    "seconds": {}, "messages": [], "errors": {},
}  # fmt: skip


def test_every_class_of_errors_is_known_by_its_code() -> None:
    assert CLASSES[2] == "UsageError" and CLASSES[10] == "Refused" and CLASSES[15] == "Quarantined"
    assert sorted(CLASSES) == list(range(1, 17))
