"""A real server that is watched while real devices train: its metrics, its status, its log and its health."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

import edgekit
from edgekit.bundle import Bundle
from edgekit.server.observe import probe

ENVIRONMENT = dict(
    os.environ,
    PYTHONPATH=str(Path(edgekit.__file__).parent.parent),
    OMP_NUM_THREADS="1",
    http_proxy="http://127.0.0.1:9",
)
DEVICES = ("nano", "pi")


def start(module: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip


def get(port: int, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=300) as answer:
        content: bytes = answer.read()
    return content


def samples(port: int) -> dict[tuple[str, frozenset[str]], float]:
    """By name and values of labels."""
    families = text_string_to_metric_families(get(port, "/metrics").decode())
    return {(each.name, frozenset(each.labels.values())): each.value for family in families for each in family.samples}


class Server:
    """`edgekit serve`, watched, until it is told to end; keeps the lines of its log."""

    def __init__(self, bundle: str) -> None:
        words = ("serve", bundle, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--json")
        self.process = start("edgekit", *words)
        assert self.process.stdout is not None
        self.lines = [json.loads(self.process.stdout.readline())]
        self.port, self.metrics = self.lines[0]["port"], self.lines[0]["metrics"]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines += [json.loads(line) for line in lines]

    def end(self) -> None:
        self.process.terminate()
        assert self.process.stderr is not None
        with self.process.stderr as words:
            err = words.read()
        self.process.wait(300)
        self._reader.join(300)
        assert err.strip() in ("", "stopped")


def done(server: Server, bundle: str) -> dict[str, dict[str, Any]]:
    """The "done" event of each device, by its name, when all have trained."""
    words = ("--server", f"127.0.0.1:{server.port}", "--limit", "96", "--epochs", "2", "--json")
    running = {
        name: start("edgekit.runtime", bundle, *words, "--name", name, "--share", f"{index}/{len(DEVICES)}")
        for index, name in enumerate(DEVICES)
    }
    told = {}
    for name, process in running.items():
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        told[name] = json.loads(out.splitlines()[-1])
        assert told[name]["event"] == "done"
    return told


def test_a_run_is_seen_as_it_is(small_bundle: Bundle) -> None:
    server = Server(small_bundle.path)
    try:
        assert json.loads(get(server.metrics, "/health")) == {"health": "serving"}
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.enable_http_proxy", 0)]) as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=300) == probe.SERVING
        before = samples(server.metrics)
        assert before["edgekit_batches_total", frozenset()] == 0
        devices = done(server, small_bundle.path)
        found, status = samples(server.metrics), json.loads(get(server.metrics, "/status"))

        # What the devices counted themselves, from hello to goodbye.
        expected: Counter[tuple[str, str]] = Counter()
        for name, event in devices.items():
            for key, n in event["bytes"].items():
                way, kind = key.split(".")
                expected[way, kind] += n
            for way in ("up", "down"):
                all_of_it = sum(n for key, n in event["bytes"].items() if key.startswith(way))
                assert found["edgekit_device_bytes_total", frozenset({name, way})] == all_of_it
            assert found["edgekit_device_images_total", frozenset({name})] == event["images"]
        assert {(each["direction"], each["kind"]): each["bytes"] for each in status["messages"]} == expected
        for (way, kind), n in expected.items():
            assert found["edgekit_message_bytes_total", frozenset({way, kind})] == n

        images = sum(event["images"] for event in devices.values())
        assert found["edgekit_images_total", frozenset()] == status["images"] == images
        assert found["edgekit_devices", frozenset({"finished"})] == 2
        assert found["edgekit_test_accuracy_ratio", frozenset()] == status["tested"]["accuracy"] / 100
        assert found["edgekit_batch_seconds_count", frozenset({"train"})] == status["batches"]
        assert {device["name"]: device["state"] for device in status["devices"]} == dict.fromkeys(DEVICES, "finished")

        table = start("edgekit", "status", f"127.0.0.1:{server.metrics}")
        out, err = table.communicate(timeout=300)
        assert table.returncode == 0, err
        assert f"run {status['run']} of edgekit" in out and all(name in out for name in DEVICES)
        wrong = start("edgekit", "status", f"127.0.0.1:{server.port}")
        assert wrong.communicate(timeout=300)[1].startswith("error: something listens at") and wrong.returncode == 9
    finally:
        server.end()
    assert server.lines[0]["event"] == "listening" and server.lines[-1]["event"] == "ended"
    for line in server.lines:
        assert line["run"] == status["run"] and line["time"].endswith("Z")
    assert [line["time"] for line in server.lines] == sorted(line["time"] for line in server.lines)
    assert all(line["device"] in DEVICES for line in server.lines if line["event"] in ("joined", "left"))


def test_metrics_stay_on_this_machine_unless_asked(small_bundle: Bundle) -> None:
    refused = start("edgekit", "serve", small_bundle.path, "--listen", "127.0.0.1:0", "--metrics", "0.0.0.0:0")
    err = refused.communicate(timeout=300)[1]
    assert refused.returncode == 2 and err.startswith("error: --metrics 0.0.0.0:0 leaves this machine")
