from edgekit.server.observe.sight import Sight
from edgekit.server.observe.traffic import Volume
from tests.server.talk import CODEC


def joined(session: int, device: str) -> dict[str, object]:
    return {"event": "joined", "session": session, "device": device, "steps": 3}


def test_a_run_that_goes_back_has_the_sessions_of_its_checkpoint() -> None:
    sight = Sight(CODEC, 64)
    for session, device in ((1, "a"), (2, "b")):
        sight.event(joined(session, device))
    sight.traffic.volume(1, Volume(up=7))
    sight.event({"event": "quarantined", "device": "a", "step": 1, "reason": "noise"})
    sight.event({"event": "left", "session": 1, "device": "a", "steps": 1, "finished": False})
    sight.went_back({1: "a", 3: "c"})
    found = sight.devices()
    assert {name: each["left"] for name, each in found.items()} == {"b": "lost", "a": "", "c": ""}
    assert found["a"]["bytes_up"] == 7, "what was sent was sent"
    nobody = Volume()
    assert sight.traffic.volume(2, nobody) is nobody
    assert sight.traffic.volume(3, Volume(up=5)) is not nobody and sight.devices()["c"]["bytes_up"] == 5


def test_who_finished_after_the_checkpoint_is_remembered_so_until_it_comes() -> None:
    sight = Sight(CODEC, 64)
    sight.event(joined(1, "a"))
    sight.event({"event": "left", "session": 1, "device": "a", "steps": 3, "finished": True})
    sight.went_back({})
    assert sight.devices()["a"]["left"] == "finished"
    sight.went_back({1: "a"})
    assert sight.devices()["a"]["left"] == ""
