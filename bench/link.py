"""Whether `edgekit link` carries what was asked: rate each way and round trip, through real sockets and its process.

``python bench/link.py [--out FILE]``: a grid of rates and round trips, and links that are asymmetric, shared, jitter
and stall. Round trips are of 16-byte messages, one at a time, less the time those take at the link's rate; rates are
of both directions at once, from the first bytes that arrive to the last. About two minutes.
``python bench/link.py --show RECORD``: such a record as a Markdown table.
"""

import contextlib
import random
import socket
import statistics
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import markdown
import record
from arguments import Arguments

from edgekit import machine
from edgekit.launch.processes import Children
from edgekit.link.link import Link, parse_link

RATES = ("0.25mbit", "1mbit", "10mbit", "100mbit")
ROUND_TRIPS = ("", "+20ms", "+50ms", "+200ms")
OTHERS = ("2mbit/10mbit+30ms", "10mbit+50ms+jitter=5ms", "10mbit+20ms+stall=200ms@1s")
#: Measured over this many connections as well.
SHARED, CONNECTIONS = "10mbit+20ms", 4
MESSAGE = bytes(16)
TIMEOUT_S = 60.0


def connect(port: int, target: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over the link."""
    near = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    far, _ = target.accept()
    for end in (near, far):
        end.settimeout(TIMEOUT_S)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def round_trips(near: socket.socket, far: socket.socket, n: int) -> list[float]:
    """Seconds that each of `n` messages and its answer took."""

    def answer() -> None:
        for _ in range(n):
            far.sendall(far.recv(len(MESSAGE), socket.MSG_WAITALL))

    seconds = []
    with ThreadPoolExecutor() as pool:
        pool.submit(answer)
        for _ in range(n):
            start = time.perf_counter()
            near.sendall(MESSAGE)
            near.recv(len(MESSAGE), socket.MSG_WAITALL)
            seconds.append(time.perf_counter() - start)
            # At any time of a stall's period.
            time.sleep(random.uniform(0.001, 0.02))
    return seconds


Arrivals = list[tuple[float, int]]


def receive(end: socket.socket, n_bytes: int) -> Arrivals:
    arrivals = []
    while n_bytes:
        n = len(end.recv(1 << 18))
        if not n:
            raise SystemExit("the emulated link ended")
        arrivals.append((time.perf_counter(), n))
        n_bytes -= n
    return arrivals


def flood(pairs: list[tuple[socket.socket, socket.socket]], link: Link, seconds: float) -> dict[str, Arrivals]:
    """What arrived when, up and down, while every pair sends its share of `seconds` of line both ways."""
    arriving: dict[str, list[Future[Arrivals]]] = {"up": [], "down": []}
    with ThreadPoolExecutor(4 * len(pairs)) as pool:
        for near, far in pairs:
            for way, sender, receiver, rate in (("up", near, far, link.up_bit_s), ("down", far, near, link.down_bit_s)):
                n_bytes = int(rate * link.moving * seconds / 8 / len(pairs))
                arriving[way].append(pool.submit(receive, receiver, n_bytes))
                pool.submit(sender.sendall, bytes(n_bytes))
    return {way: sorted(each for part in parts for each in part.result()) for way, parts in arriving.items()}


def bit_s(arrivals: Arrivals) -> float:
    return 8 * sum(n for _, n in arrivals[1:]) / (arrivals[-1][0] - arrivals[0][0])


def measure(text: str, seconds: float, connections: int) -> dict[str, Any]:
    """A row: asked and achieved, and what the emulator took of a core meanwhile."""
    link = parse_link(text)
    n = 101 if link.jitter_s or link.stall_s else 41 if link.round_trip_s < 0.1 else 21
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        target.settimeout(TIMEOUT_S)
        children = stack.enter_context(Children())
        children.start("link", ["link", text, "--to", f"127.0.0.1:{target.getsockname()[1]}", "--json"])
        port = next(event["port"] for _, event in children.events())
        pairs = [connect(port, target) for _ in range(connections)]
        for pair in pairs:
            for end in pair:
                stack.enter_context(end)
        sending = 8 * len(MESSAGE) * (1 / link.up_bit_s + 1 / link.down_bit_s)
        trips = sorted(trip - sending for trip in round_trips(*pairs[0], n))
        before, start = machine.usage(children.pid("link")).cpu_s, time.perf_counter()
        # Whole periods of stalls.
        arrived = flood(pairs, link, 5 * link.stall_every_s or seconds)
        cpu = (machine.usage(children.pid("link")).cpu_s - before) / (time.perf_counter() - start)
    pauses = (later - earlier for (earlier, _), (later, _) in zip(arrived["up"], arrived["up"][1:], strict=False))
    return {
        "link": text,
        "connections": connections,
        "asked": {
            "up_bit_s": link.up_bit_s * link.moving,
            "down_bit_s": link.down_bit_s * link.moving,
            # Each way takes half the jitter longer on the mean.
            "round_trip_s": link.round_trip_s + link.jitter_s,
        },
        "achieved": {
            "up_bit_s": bit_s(arrived["up"]),
            "down_bit_s": bit_s(arrived["down"]),
            "round_trip_s": statistics.median(trips),
        },
        "round_trips_s": {"p5": trips[n // 20], "p95": trips[-1 - n // 20], "n": n},
        "longest_pause_s": max(pauses),
        "cpu": cpu,
    }


def deviation(row: dict[str, Any], figure: str) -> float | None:
    """Of what was asked, in percent; None where that was 0."""
    asked = row["asked"][figure]
    return round(100 * (row["achieved"][figure] / asked - 1), 2) + 0.0 if asked else None


def worst(rows: list[dict[str, Any]], *figures: str) -> float:
    return max(abs(off) for row in rows for figure in figures if (off := deviation(row, figure)) is not None)


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    undelayed = [row["achieved"]["round_trip_s"] for row in rows if not row["asked"]["round_trip_s"]]
    return {
        "worst_rate_percent": worst(rows, "up_bit_s", "down_bit_s"),
        "worst_round_trip_percent": worst(rows, "round_trip_s"),
        "own_round_trip_s": statistics.median(undelayed),
    }


def table(made: dict[str, Any]) -> str:
    """The record `made` as Markdown: what was achieved, and how far that is from what was asked."""
    heads = ("link", "up, Mbit/s", "down, Mbit/s", "round trip, ms", "5 % to 95 %, ms", "longest pause, ms", "CPU")
    rows = []
    for row in made["rows"]:
        shared = f", {row['connections']} connections" if row["connections"] > 1 else ""
        trips = row["round_trips_s"]
        rows.append([
            f"`{row['link']}`{shared}",
            _against(row, "up_bit_s", 1e-6),
            _against(row, "down_bit_s", 1e-6),
            _against(row, "round_trip_s", 1e3),
            f"{1e3 * trips['p5']:.1f} to {1e3 * trips['p95']:.1f}",
            f"{1e3 * row['longest_pause_s']:.0f}",
            f"{100 * row['cpu']:.0f} %",
        ])  # fmt: skip
    said = made["summary"]
    return (
        f"{markdown.table(heads, rows, '---:')}\n\n"
        f"Largest deviation of a rate {said['worst_rate_percent']:.2f} %, of a round trip "
        f"{said['worst_round_trip_percent']:.2f} %; a round trip over a link without delay takes "
        f"{1e3 * said['own_round_trip_s']:.2f} ms."
    )


def _against(row: dict[str, Any], figure: str, scale: float) -> str:
    off = deviation(row, figure)
    value = f"{row['achieved'][figure] * scale:.4g}"
    return f"{value} ({off:+.2f} %)" if off is not None else value


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("of line in each measurement of a rate", seconds=2.0)
    options = arguments.parse_or_show(table)
    wanted = [(rate + trip, 1) for rate in RATES for trip in ROUND_TRIPS]
    wanted += [(text, 1) for text in OTHERS] + [(SHARED, CONNECTIONS)]
    rows = []
    for text, connections in wanted:
        rows.append(measure(text, options.seconds, connections))
        off = (deviation(rows[-1], figure) for figure in rows[-1]["asked"])
        shown = " ".join("-" if each is None else f"{each:+.2f} %" for each in off)
        sys.stderr.write(f"{text} x{connections}: up, down, round trip {shown}\n")
    made = {
        **record.head(),
        "machine": machine.describe(),
        "seconds": options.seconds,
        "rows": rows,
        "summary": summary(rows),
    }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()
