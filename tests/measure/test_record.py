"""Medians, speedups, limits and warnings, against figures worked out by hand."""

from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import DataError, UsageError
from edgekit.link.link import parse_link
from edgekit.measure.compare import check_common, compare, load, other_settings
from edgekit.measure.record import baselines, limits, link_bound, record, summarise, warnings

AGAINST = {"fp32": "fp32", "uq": "uq"}
LINKS = {"1mbit": parse_link("1mbit"), "loopback": None}
CLOCKS = {"governor": None, "mhz": None, "locked": None}
MACHINES = {side: {"clocks": CLOCKS, "processor": "p", "cores": 2, "python": "3", "versions": {}}
            for side in ("device", "server")}  # fmt: skip


def cell(codec: str, rate: float, repeat: int = 0, link: str = "1mbit", **changed: Any) -> dict[str, Any]:
    return {
        "codec": codec, "link": link, "in_flight": 1, "repeat": repeat, "images_per_s": rate,
        "latency_s": {"p50": 32 / rate}, "bytes_per_image": {"up": {"feature": 90.0, "codebook": 10.0},
        "down": {"gradient": 400.0}}, "seconds_per_image": {"network": 0.1}, "staleness": 0.0,
        "cpu_seconds_per_image": {"device": 0.1}, "peak_memory_bytes": {"device": 1}, "joules_per_image": None,
        "others_cpu": 0.0, **changed,
    }  # fmt: skip


def test_a_speedup_is_the_median_of_ratios_within_repeats() -> None:
    rates = {"fp32": [10.0, 20.0, 40.0], "sgq": [40.0, 60.0, 80.0]}
    cells = [cell(codec, rates[codec][i], i) for i in range(3) for codec in rates]
    sgq = next(result for result in summarise(cells, LINKS, AGAINST) if result["codec"] == "sgq")
    assert sgq["images_per_s"] == {"median": 60.0, "low": 40.0, "high": 80.0, "n": 3}
    assert sgq["speedup"] == {"fp32": {"median": 3.0, "low": 2.0, "high": 4.0, "n": 3}}
    assert (sgq["bytes_up_per_image"], sgq["bytes_down_per_image"]) == (100.0, 400.0)


def test_a_baseline_is_known_by_what_it_is() -> None:
    uniform = {"codec": "uniform", "config": {"bits": 4}, "gradient": "stochastic:bits=4"}
    coarse = dict(uniform, config={"bits": 8})
    raw = {"codec": "raw", "config": {}, "gradient": "none"}
    assert baselines({"mine": uniform, "uq": coarse, "fp32": raw}) == {"uq": "mine", "fp32": "fp32"}
    assert baselines({"uq": coarse}) == {}


def test_what_failed_is_said_first() -> None:
    assert record({}, {}, LINKS, [], [], MACHINES, [], "", "stopped")["warnings"][0] == "not complete: stopped"


def test_bounds() -> None:
    assert link_bound(parse_link("1mbit/0.1mbit"), 500, 100, 4) == pytest.approx(125.0)
    assert link_bound(parse_link("1mbit/0.1mbit"), 500, 100, 1) == pytest.approx(1 / 0.012)
    assert link_bound(parse_link("1mbit+stall=100ms@1s"), 500, 100, 4) == pytest.approx(0.9 * 250)
    assert link_bound(None, 500, 100, 1) is None
    found = limits(summarise([cell("sgq", 50.0, link="loopback"), cell("sgq", 20.0)], LINKS, AGAINST))
    # 500 B an image, one way after the other, take as long as 1/50 s at 200 kbit/s.
    assert found == {"sgq": {"1": {"compute_bound_images_per_s": 50.0, "binds_below_bit_s": pytest.approx(2e5)}}}
    overlapping = limits(summarise([cell("sgq", 50.0, link="loopback", in_flight=4)], LINKS, AGAINST))
    assert overlapping["sgq"]["4"]["binds_below_bit_s"] == pytest.approx(8 * 400 * 50)


def test_warns_of_noise_and_of_clocks() -> None:
    cells = [cell("sgq", 100.0, 0, others_cpu=0.2), cell("sgq", 150.0, 1, others_cpu=0.2)]
    found = " ".join(warnings(summarise(cells, LINKS, AGAINST), cells, MACHINES))
    assert "1 of 1 results spread" in found and "40%" in found
    assert "other processes took 20%" in found and "clocks cannot be read" in found
    locked = {"device": {"clocks": dict(CLOCKS, locked=True)}}
    quiet = [cell("sgq", 100.0, 0), cell("sgq", 101.0, 1)]
    assert warnings(summarise(quiet, LINKS, AGAINST), quiet, locked) == []
    assert "not locked" in warnings([], [], {"device": {"clocks": dict(CLOCKS, locked=False)}})[0]


def whole(*rates: float) -> dict[str, Any]:
    codecs = {"sgq": {"method": "sgq+none", "codec": "sgq", "config": {}, "gradient": "none"}}
    cells = [cell("sgq", rate, i) for i, rate in enumerate(rates)]
    return record({"model": "m"}, codecs, LINKS, cells, [], MACHINES, ["edgekit"], "2026-01-01T00:00:00Z")


def test_compare_with_an_earlier_record() -> None:
    (same,) = compare(whole(10.0, 12.0), whole(11.0, 14.0))
    assert same.within and (same.before, same.now) == (12.5, 11.0)
    (other,) = compare(whole(10.0, 12.0), whole(12.5, 14.0))
    assert other.within is False
    (single,) = compare(whole(10.0), whole(11.0, 14.0))
    assert single.within is None
    earlier = whole(1.0)
    earlier["setting"]["model"] = "n"
    earlier["machine"] = dict(MACHINES, device=dict(MACHINES["device"], cores=4))
    assert other_settings(whole(1.0), earlier) == ["setting model: m now, n before", "device cores: 2 now, 4 before"]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "x"}', '{"format": "edgekit-measure", "version": 1}', None])
def test_a_file_that_is_no_record(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises((UsageError, DataError), match="record"):
        load(str(path))


def test_nothing_in_common() -> None:
    with pytest.raises(UsageError, match="it has sgq over 1mbit with 1 in flight"):
        check_common(whole(1.0), ["sgq"], ["2mbit"], [1])
    check_common(whole(1.0), ["sgq", "uq"], ["1mbit"], [1, 2])
