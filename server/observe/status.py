"""Status: how a run is, as one JSON object. `/status` gives it as it is, `/metrics` in Prometheus' words.

docs/watching.md says what each field means. Nothing here takes the service's lock, which is held for as long as a step
takes: a server that hangs in one can be looked at. So the fields may be a moment apart.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import edgekit
from edgekit.server import events
from edgekit.server.observe.sight import Seen, Sight
from edgekit.server.service import Service

Status = dict[str, Any]
#: What a device does: before its session, in it, and after it.
STATES = (
    "joining", "training", "waits_step", "waits_round", "waits_test", "waits_save", "testing", "resting", "late",
    "away", "finished", "lost", "quarantined",
)  # fmt: skip
#: In these others may be waited for, by who is in one of `WAITS`.
BUSY, WAITS = ("training", "testing", "resting", "away"), ("waits_step", "waits_round", "waits_test", "waits_save")


def looker(service: Service, sight: Sight, run: str, expected: int | None) -> Callable[[], Status]:
    """What gives the status of `service`, whose run has the id `run` and `expected` devices, None: any number."""

    def look() -> Status:
        fleet, rounds, now = service.fleet, service.rounds, time.time()
        seen, nothing = sight.devices(), Seen().told()
        doing = service.doing()
        sessions = fleet.in_order()
        pace = {session.number: session.others + session.step for session in sessions}
        front = max(pace.values(), default=0)
        devices = [
            {
                **seen.get(session.device, nothing),
                "name": session.device, "state": doing.get(session.number, "training"), "step": session.step,
                "behind": front - pace[session.number], "tables": session.tables_version,
            }
            for session in sessions
        ]  # fmt: skip
        present = {session.device for session in sessions}
        quarantined = dict(fleet.quarantined)
        # Of those that left only what is remembered is told: their number has no bound. The fleet forgets them where a
        # new run begins; and one that finished may have come again, and be lost now.
        left = {
            **{name: each["left"] for name, each in seen.items() if each["left"]},
            **dict.fromkeys(set(fleet.finished), "finished"), **dict.fromkeys(set(fleet.lost), "lost"),
            **dict.fromkeys(quarantined, "quarantined"),
        }  # fmt: skip
        gone = sorted((name, state) for name, state in left.items() if name not in present)
        joining = service.joining()
        counted = Counter([*(device["state"] for device in devices), *(state for _, state in gone)])
        states = {state: counted[state] for state in STATES} | {"joining": len(joining)}
        devices += [{**seen[name], "name": name, "state": state} for name, state in gone if name in seen]
        for device in devices:
            del device["left"]
            if device["state"] == "quarantined":
                device["reason"] = quarantined.get(device["name"], "")
        waiting = any(device["state"] in WAITS for device in devices)
        return {
            "edgekit": edgekit.__version__, "run": run, "bundle": service.setup.digest, "time": events.utc(now),
            "now": now, **sight.told(), "progress": fleet.progress, "steps": fleet.steps,
            "steps_without_some": fleet.short_steps, "rounds": rounds.number if rounds.policy.every else 0,
            "late_updates": fleet.late_updates, "devices_expected": expected, "states": states, "joining": joining,
            "waited_for": [each["name"] for each in devices if waiting and each["state"] in BUSY], "devices": devices,
        }  # fmt: skip

    return look
