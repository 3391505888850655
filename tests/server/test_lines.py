"""Lines: what a session needs to go on over another one, and what is refused."""

import threading

import pytest

from edgekit.errors import Refused, TransportError
from edgekit.line.frame import Message
from edgekit.line.messages import Resume, Resumed
from edgekit.server.lines import ENDED, Lines
from edgekit.server.turns import Turns


def nobody(number: int, breaks: int) -> None:
    raise AssertionError("nobody is away for so long")


def answer(step: int) -> Message:
    return Message("ack", 1, step)


@pytest.fixture
def gone() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def lines() -> Lines:
    return Lines(300.0, nobody)


def test_the_answers_that_did_not_arrive_come_again(lines: Lines) -> None:
    token = lines.begin(1, window=3)
    for step in range(5):
        lines.keep(1, answer(step))
    for received in (2, 3, 5):
        request = Resume(1, received, token)
        lines.take(request, "new")
        assert lines.lost(request, "new") == (Resumed(1, 5), [answer(step) for step in range(received, 5)])
    for received in (1, 6):
        with pytest.raises(Refused, match=f"has {received} answers of session 1, 5 were given and the last 3"):
            lines.lost(Resume(1, received, token), "new")
    with pytest.raises(TransportError, match="went on over another line"):
        lines.lost(Resume(1, 5, token), "old")


def test_the_line_before_is_deaf(lines: Lines) -> None:
    token = lines.begin(1, window=3)
    assert lines.holds(1, "any"), "as long as nobody said"
    lines.use(1, "old")
    assert lines.holds(1, "old") and not lines.holds(1, "new") and not lines.holds(2, "old")
    lines.take(Resume(1, 0, token), "new")
    assert lines.holds(1, "new") and not lines.holds(1, "old")


def test_another_token_and_another_session_are_refused(lines: Lines) -> None:
    token = lines.begin(1, window=3)
    assert len({lines.begin(number, window=3) for number in range(2, 30)} | {token}) == 29
    assert lines.begin(30, window=0) == "" == Lines(0.0, nobody).begin(1, window=3)
    for request in (Resume(2, 0, token), Resume(31, 0, token), Resume(1, 0, ""), Resume(30, 0, ""), Resume(1, 0, "é")):
        with pytest.raises(TransportError, match=rf"there is no session {request.session} of this device here"):
            lines.take(request, "new")
    assert not lines.is_away(1)


def test_who_does_not_come_back_in_time_is_gone(gone: list[tuple[int, int]]) -> None:
    late = threading.Event()

    def leave(number: int, breaks: int) -> None:
        gone.append((number, breaks))
        late.set()

    lines = Lines(0.05, leave)
    for number in (1, 2):
        lines.begin(number, window=3)
    assert lines.broke(1) and lines.is_away(1) and not lines.is_away(2)
    assert late.wait(60) and gone == [(1, 1)] and lines.is_away(1, 1) and not lines.is_away(1, 2)


def test_who_comes_back_is_not_away(lines: Lines) -> None:
    token = lines.begin(1, window=3)
    assert lines.broke(1) and lines.broke(1) and lines.is_away(1) and lines.away() == [1]
    lines.take(Resume(1, 0, token), "new")
    assert not lines.is_away(1) and lines.away() == []
    assert not Lines(300.0, nobody).begin(1, window=0) and lines.begin(2, window=0) == "" and not lines.broke(2)


def test_the_answer_to_a_goodbye_may_be_lost_too(lines: Lines) -> None:
    token = lines.begin(1, window=3)
    lines.end(1, finished=True)
    lines.keep(1, answer(9))
    request = Resume(1, 0, token)
    lines.take(request, "new")
    lines.use(1, "new")
    assert lines.lost(request, "new") == (Resumed(1, 1), [answer(9)])
    for number in range(2, ENDED + 2):
        lines.begin(number, window=1)
        lines.end(number, finished=True)
    with pytest.raises(TransportError, match="there is no session 1"):
        lines.take(request, "new")


def test_a_session_that_was_away_for_too_long_says_so(lines: Lines) -> None:
    token = lines.begin(1, window=3)
    lines.end(1, finished=False)
    with pytest.raises(TransportError, match=r"away for too long.*--reconnect` is how many seconds it has \(300 now\)"):
        lines.take(Resume(1, 0, token), "new")


def test_a_turn_is_waited_for() -> None:
    turns, done = Turns(), threading.Event()
    turns.wait(1)

    def wait() -> None:
        turns.wait(1)
        done.set()

    with turns.of(1):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not done.wait(0.1)
    thread.join(60)
    assert done.is_set()
