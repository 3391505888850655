import re

from edgekit.server import events


def test_a_line_of_a_log_has_its_time_and_its_run() -> None:
    run = events.new_run()
    line = events.stamped({"event": "left", "device": "a"}, run)
    assert list(line) == ["time", "run", "event", "device"] and line["run"] == run
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert re.fullmatch("[0-9a-f]{8}", run) and events.new_run() != run


def test_time_is_utc_to_the_millisecond() -> None:
    assert events.utc(0.0) == "1970-01-01T00:00:00.000Z"
    assert events.utc(1795974407.4384) == "2026-11-29T17:46:47.438Z"
