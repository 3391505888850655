"""Links read from text: every part, lists of them, and what is none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.link.link import BITS, SECONDS, Link, parse_link, split_links


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("10mbit", Link(10e6, 10e6, 0.0)),
        ("10mbit+20ms", Link(10e6, 10e6, 0.02)),
        ("10mbit,20ms", Link(10e6, 10e6, 0.02)),
        ("1gbit", Link(1e9, 1e9, 0.0)),
        ("500kbit+50ms", Link(5e5, 5e5, 0.05)),
        ("2mbit/10mbit,30ms", Link(2e6, 10e6, 0.03)),
        (" 2.5 Mbit / 300 bit + 0.5 s", Link(2.5e6, 300.0, 0.5)),
        ("9600bit+150us", Link(9600.0, 9600.0, 0.00015)),
        ("10mbit+jitter=5ms", Link(10e6, 10e6, 0.0, 0.005)),
        ("10mbit+stall=300ms@10s", Link(10e6, 10e6, 0.0, 0.0, 0.3, 10.0)),
        ("10mbit+50ms+jitter=5ms+stall=200ms@5s", Link(10e6, 10e6, 0.05, 0.005, 0.2, 5.0)),
        ("1mbit/2mbit,50ms,jitter=0.5ms,stall=1s@1.5s", Link(1e6, 2e6, 0.05, 0.0005, 1.0, 1.5)),
    ],
)
def test_link(text: str, link: Link) -> None:
    assert parse_link(text) == pytest.approx(link)
    assert parse_link(str(parse_link(text))) == pytest.approx(link)


def test_text_of_a_link_is_short() -> None:
    assert str(Link(1e6, 1e6, 0.0)) == "1mbit"
    assert str(Link(2.5e6, 1e10, 0.03)) == "2.5mbit/10gbit+30ms"
    assert str(Link(1e6, 1e6, 0.0, 0.005, 0.3, 10.0)) == "1mbit+jitter=5ms+stall=300ms@10s"


def test_share_of_the_time_in_which_it_moves() -> None:
    assert Link(1e6, 1e6, 0.0).moving == 1.0
    assert parse_link("1mbit+stall=1s@4s").moving == 0.75


@pytest.mark.parametrize(
    "text",
    ["", "10", "10mb", "10mbit,20", "20ms", "10mbit,20ms,1ms", "-1mbit", "0mbit", "1e9bit", "infmbit", "10mbit/",
     "1mbit/s", "²mbit", "\u0661mbit", "9" * 400 + "bit", "1mbit," + "9" * 400 + "s", "1mbit+", "1mbit++5ms",
     "1mbit+jitter", "1mbit+jitter=5", "1mbit+jitter=-1ms", "1mbit+jitter=" + "9" * 400 + "s", "1mbit+stall=1s",
     "1mbit+stall=1s@1s", "1mbit+stall=2s@1s", "1mbit+stall=0s@1s", "1mbit+stall=0s@0s", "1mbit+stall=1s@1s@1s",
     "1mbit+stall=1s@4s+jitter=1ms", "1mbit+loss=1%", "loopback"],
)  # fmt: skip
def test_link_that_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match=r"link '.*': expected"):
        parse_link(text)


RATES = st.builds("{}{}".format, st.integers(1, 10**6), st.sampled_from(sorted(BITS)))
TIMES = st.builds("{}{}".format, st.integers(1, 10**6), st.sampled_from(sorted(SECONDS)))


def maybe(before: str, strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just(""), strategy.map(lambda text: before + text))


@given(RATES, maybe("/", RATES), maybe("+", TIMES), maybe("+jitter=", TIMES), st.one_of(st.none(), TIMES), TIMES)
def test_any_link_of_the_syntax_is_read(
    up: str, down: str, delay: str, jitter: str, stall: str | None, every: str
) -> None:
    text = up + down + delay + jitter + (f"+stall={stall}@{every}" if stall else "")
    shorter = stall is None or seconds(stall) < seconds(every)
    if not shorter:
        with pytest.raises(UsageError, match="a stall that is shorter"):
            parse_link(text)
        return
    link = parse_link(text)
    assert link.up_bit_s >= 1 and (down or link.down_bit_s == link.up_bit_s)
    assert [bool(value) for value in link[2:5]] == [bool(delay), bool(jitter), bool(stall)]
    assert parse_link(str(link)) == pytest.approx(link)
    assert parse_link(text.replace("+", ",")) == link
    assert split_links(f"{text},loopback") == {text: link, "loopback": None}


def seconds(text: str) -> float:
    return parse_link(f"1bit+{text}").round_trip_s


@given(st.one_of(st.text(), st.text(alphabet="0123456789.kmgbituns/,+@= jrela", max_size=32)))
def test_any_other_text_is_a_usage_error(text: str) -> None:
    try:
        link = parse_link(text)
    except UsageError:
        return
    assert all(math.isfinite(value) and value >= 0 for value in link) and min(link[:2]) >= 1


def test_list_of_links() -> None:
    links = split_links("1mbit, 10Mbit+50ms,2mbit/10mbit,loopback")
    assert list(links) == ["1mbit", "10mbit+50ms", "2mbit/10mbit", "loopback"]
    assert links["loopback"] is None and links["10mbit+50ms"] == Link(10e6, 10e6, 0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1mbit,50ms", r"link '50ms': expected .*; in a list a comma parts links, or loopback"),
        ("1mbit,,2mbit", r"link '': expected"),
        ("", r"link '': expected"),
        ("1mbit,loopback+20ms", r"link 'loopback\+20ms': expected"),
        ("1mbit, loopback,1Mbit", r"links '1mbit, loopback,1Mbit': 1mbit is there twice"),
    ],
)
def test_list_that_makes_no_sense(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_links(text)
