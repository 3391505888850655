"""Bytes by direction and kind, seconds by activity, and the record."""

import io
import json
import time
from typing import Any

import pytest

from edgekit.line.frame import KINDS
from edgekit.line.meter import TRAINING_KINDS, Meter, Recorder


def test_bytes_and_frames_add_up_by_direction_and_kind():
    meter = Meter()
    for direction, kind, n in [
        ("up", "feature", 100),
        ("up", "feature", 50),
        ("down", "gradient", 30),
        ("down", "feature", 1),
    ]:
        meter.count(direction, kind, n)
    assert meter.bytes == {("up", "feature"): 150, ("down", "gradient"): 30, ("down", "feature"): 1}
    assert meter.frames == {("up", "feature"): 2, ("down", "gradient"): 1, ("down", "feature"): 1}
    assert list(meter.by_kind().items()) == [("down.feature", 1), ("down.gradient", 30), ("up.feature", 150)]


OTHERS = ("evaluate", "result", "tested", "tally", "error", "ping", "pong")


def test_training_bytes_are_all_but_evaluation_and_errors():
    meter = Meter()
    for bit, kind in enumerate(sorted(KINDS)):
        meter.count("up", kind, 1 << bit)
        meter.count("down", kind, 1 << (bit + 16))
    expected = sum(1 << bit for bit, kind in enumerate(sorted(KINDS)) if kind not in OTHERS)
    assert meter.training_bytes("up") == expected
    assert meter.training_bytes("down") == expected << 16
    assert set(TRAINING_KINDS) <= set(KINDS)


def test_nothing_counted_is_nothing():
    assert Meter().training_bytes("up") == 0 and Meter().by_kind() == {}


def test_time_adds_up_also_when_the_activity_fails(monkeypatch):
    clock = iter([10.0, 10.5, 20.0, 22.0, 30.0, 30.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = Meter()
    with meter.timed("compute"):
        pass
    with pytest.raises(ZeroDivisionError), meter.timed("compute"):
        1 / 0  # noqa: B018
    with meter.timed("encode"):
        pass
    assert meter.seconds == {"compute": 2.5, "encode": 0.25}


class _Stream(io.StringIO):
    """What a reader at the other end has seen."""

    seen = ""

    def flush(self):
        self.seen = self.getvalue()


def test_a_record_is_one_json_object_a_line_each_there_at_once():
    stream = _Stream()
    record = Recorder(stream)
    events: list[dict[str, Any]] = [{"event": "epoch", "loss": 0.5}, {"event": "done", "text": "line\nbreak ü"}]
    for n, event in enumerate(events, 1):
        record(event)
        lines = stream.seen.splitlines()
        assert stream.seen.endswith("\n") and [json.loads(line) for line in lines] == events[:n]


def test_a_recorder_without_a_stream_takes_events():
    Recorder(None)({"event": "epoch"})
