"""The fleet: how far the run is, whoever joins late or leaves early; who may join; when a run is over."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.features.raw import Raw
from edgekit.errors import Quarantined, Refused
from edgekit.line.messages import Hello
from edgekit.server.fleet import Fleet
from edgekit.server.session import Session


def session(number: int, name: str = "", images: int = 60, epochs: int = 2) -> Session:
    hello = Hello("b", name or f"device-{number}", images, -(-images // 10), epochs)
    return Session(number, hello, {}, Raw().stream())


def joined(fleet: Fleet, *given: Session) -> Fleet:
    for each in given:
        fleet.join(each)
    return fleet


def test_progress_is_the_share_of_the_images_that_were_seen() -> None:
    fleet = joined(Fleet(), session(1), session(2, images=180))
    assert fleet.advance({1: 30}) == pytest.approx((0.0, 30 / 480))
    assert fleet.advance({1: 30, 2: 60})[1] == pytest.approx(120 / 480)
    assert [each.left for each in fleet.in_order()] == [60, 300]


def test_who_joins_late_does_the_epochs_that_are_left() -> None:
    fleet = joined(Fleet(), session(1, epochs=4))
    for _ in range(5):
        fleet.advance({1: 30})
    fleet.join(session(2, epochs=4))
    assert fleet.epochs_done(4) == 2 and fleet.sessions[2].left == 2 * 60
    before, after = fleet.advance({1: 30, 2: 30})
    # 90 and 120 images are left of three eighths of the run.
    assert before == pytest.approx(5 / 8) and after == pytest.approx(5 / 8 + 3 / 8 * 60 / 210)


def test_what_a_device_that_left_had_planned_is_not_waited_for() -> None:
    fleet = joined(Fleet(), session(1), session(2))
    fleet.advance({1: 60, 2: 60})
    fleet.leave(fleet.sessions[2], finished=False)
    fleet.advance({1: 60})
    assert fleet.progress == 1.0 and fleet.lost == {"device-2"}


def test_what_a_device_skips_is_no_part_of_the_run() -> None:
    fleet, found = joined(Fleet(), session(1, epochs=4), session(2, epochs=4)), []
    fleet.active = 0.5
    for epoch in range(4):
        for each in fleet.sessions.values():
            each.later = each.left - 60
            each.resting = each.number == 1 + epoch % 2
        trains = 2 - epoch % 2
        found += [fleet.advance({trains: 30})[1] for _ in range(2)]
        fleet.sessions[3 - trains].left -= 60
    assert found == pytest.approx([(step + 1) / 8 for step in range(8)]) and found[-1] == 1.0


def test_a_device_may_see_more_than_it_planned() -> None:
    fleet = joined(Fleet(), session(1, images=10, epochs=1))
    for _ in range(3):
        fleet.advance({1: 10})
    assert fleet.progress == 1.0 and fleet.sessions[1].left == 0
    assert joined(Fleet(), session(1, images=0, epochs=0)).advance({1: 10}) == (0.0, 1.0)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "lose", "step", "plan"]), st.integers(0, 5), st.integers(1, 40)),
    max_size=60,
)


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 5)), min_size=1, max_size=6), EVENTS)
@settings(deadline=None)
def test_progress_never_falls_and_ends_at_one(plans: list[tuple[int, int]], events: list[tuple[str, int, int]]) -> None:
    """Devices join, leave, lose their line, and plan other than they did; those that stay train to the end."""
    fleet = Fleet(devices=100)

    def join(which: int) -> None:
        images, epochs = plans[which % len(plans)]
        fleet.joined += 1
        fleet.join(session(fleet.joined, images=images, epochs=epochs))

    def step(images: int) -> None:
        seen = {number: min(images, each.left) for number, each in fleet.sessions.items() if each.left}
        if seen:
            before, after = fleet.advance(seen)
            assert 0.0 <= before <= after <= 1.0 and before == last

    join(0)
    for what, which, images in events:
        last = fleet.progress
        numbers = sorted(fleet.sessions)
        if what == "join":
            join(which)
        elif what == "step":
            step(images)
        elif what == "plan":
            # An update says how many images are still planned: some were left out, as where a device rested.
            each = fleet.sessions[numbers[which % len(numbers)]]
            each.left = max(each.left - images, 0)
        elif len(numbers) > 1:
            fleet.leave(fleet.sessions[numbers[which % len(numbers)]], finished=what == "leave")
        assert fleet.progress >= last
    trained = any(each.left for each in fleet.sessions.values())
    while any(each.left for each in fleet.sessions.values()):
        last = fleet.progress
        step(7)
    assert fleet.progress == 1.0 or not trained


def test_two_of_one_name_are_refused() -> None:
    fleet = joined(Fleet(), session(1, "a"))
    with pytest.raises(Refused, match=r"a device named a is in training \(session 1\)"):
        fleet.check(session(2, "a").hello)
    fleet.check(session(2, "b").hello)
    fleet.leave(fleet.sessions[1], finished=False)
    fleet.check(session(2, "a").hello)


def test_quarantine_is_of_the_name() -> None:
    fleet = joined(Fleet(), session(1, "a"))
    fleet.quarantined["a"] = "too loud"
    fleet.leave(fleet.sessions[1], finished=True)
    with pytest.raises(Quarantined, match="a is in quarantine: too loud; start the server anew"):
        fleet.check(session(2, "a").hello)
    assert fleet.ended == 1 and not fleet.finished


def test_devices_are_in_the_order_of_their_names() -> None:
    fleet = joined(Fleet(), session(1, "c"), session(2, "a"), session(3, "b"))
    assert [each.device for each in fleet.in_order()] == ["a", "b", "c"]


def over(fleet: Fleet, *names: str, **finished: bool) -> Any:
    for name in names:
        fleet.joined += 1
        fleet.join(session(fleet.joined, name))
    for each in list(fleet.sessions.values()):
        fleet.leave(each, finished.get(each.device, True))
    return fleet.over


class TestRuns:
    """When the next device to come begins another run."""

    def test_when_all_have_finished(self) -> None:
        fleet = Fleet()
        assert not fleet.over and over(fleet, "a", "b")
        fleet.progress, fleet.steps_per_epoch = 1.0, 4
        fleet.join(session(9, "c"))
        assert fleet.progress == 0.0 and not fleet.steps_per_epoch and fleet.ended == 0
        assert fleet.sessions[9].left == 120 and not fleet.over

    def test_not_while_one_that_lost_its_line_may_come_back(self) -> None:
        fleet = Fleet()
        assert not over(fleet, "a", "b", b=False)
        fleet.progress = 1.0
        fleet.join(session(9, "b"))
        # The run was over: nothing is left for it to do.
        assert fleet.progress == 1.0 and fleet.sessions[9].left == 0 and not fleet.lost
        fleet.leave(fleet.sessions[9], finished=True)
        assert fleet.ended == 2 and fleet.over

    def test_one_that_lost_its_line_for_good_does_not_keep_others_from_training(self) -> None:
        fleet = Fleet()
        assert not over(fleet, "a", "b", b=False)
        fleet.progress, fleet.steps_per_epoch = 0.5, 4
        fleet.join(session(9, "c"))
        assert fleet.progress == 0.5, "the run is not at its end"
        fleet.leave(fleet.sessions[9], finished=True)
        fleet.progress = 1.0
        fleet.join(session(10, "a"))
        assert fleet.progress == 0.0 and not fleet.steps_per_epoch and fleet.sessions[10].left == 120

    def test_not_before_all_have_come_that_it_is_for(self) -> None:
        fleet = Fleet(devices=3)
        assert not over(fleet, "a", "b")
        fleet.progress = 1.0
        fleet.join(session(9, "c"))
        fleet.leave(fleet.sessions[9], finished=True)
        assert fleet.ended == 3 and fleet.over
