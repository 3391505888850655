"""Records for the report's tests: a made-up measurement of plausible numbers, and runs of a made-up training.

Nothing here was measured. A step takes the compute time of its codec, its bytes over the link, and the round trip.
"""

import json
from pathlib import Path
from typing import Any

import pytest

BATCH = 32
#: Codec of the record -> (codec, bytes up, bytes down, formula bytes up, seconds of compute per image)
CODECS = {
    "fp32": ("raw", 32769.0, 32769.0, 32768.0, 0.0079),
    "uq": ("uniform", 4097.8, 1408.6, 4096.0, 0.0084),
    "pq": ("product", 260.5, 2262.1, 256.0, 0.0088),
    "clio": ("slicing", 4097.1, 4100.2, 4096.0, 0.0081),
    "sgq": ("sgq", 159.7, 606.9, 256.0, 0.0089),
}
LINKS: dict[str, tuple[float, float] | None] = {
    "1mbit": (1e6, 0.0), "10mbit": (1e7, 0.0), "100mbit": (1e8, 0.0), "10mbit+50ms": (1e7, 0.05), "loopback": None,
}  # fmt: skip
REPEATS = (0.99, 1.0, 1.02)


def _link_seconds(codec: str, link: str, batches: int) -> float:
    """Seconds on the line for one image."""
    _, up, down, _, _ = CODECS[codec]
    about = LINKS[link]
    return 0.0 if about is None else 8 * (up + down) / about[0] + about[1] / BATCH / batches


def _cell(codec: str, link: str, batches: int, repeat: int) -> dict[str, Any]:
    method, up, down, _, compute = CODECS[codec]
    # Each codec drifts a little differently, so that ratios have a spread too.
    network = _link_seconds(codec, link, batches) * (1 + 0.01 * repeat * list(CODECS).index(codec))
    seconds = (compute + network) * REPEATS[repeat]
    images = max(BATCH * 4, BATCH * round(10 / seconds / BATCH))
    return {
        "codec": codec, "link": link, "in_flight": batches, "repeat": repeat, "steps": images // BATCH,
        "images": images, "seconds": images * seconds, "images_per_s": 1 / seconds,
        "latency_s": {key: BATCH * seconds * factor for key, factor in (("p50", 0.99), ("p95", 1.06), ("p99", 1.2))},
        "bytes_per_image": {
            "up": {"feature": up - (4.1 if method == "sgq" else 0.0), **({"codebook": 4.1} if method == "sgq" else {})},
            "down": {"gradient": down - 0.4, "ack": 0.4},
        },
        "seconds_per_image": {
            "device_compute": 0.45 * compute, "encode": 0.05 * compute, "network": network, "server": 0.5 * compute,
        },
        "staleness": batches - 1.0,
        "cpu_seconds_per_image": {"device": 0.5 * compute, "server": 0.5 * compute, "link": None},
        "peak_memory_bytes": {"device": 150 << 20, "server": 420 << 20}, "joules_per_image": None, "others_cpu": 0.02,
    }  # fmt: skip


def _result(cells: list[dict[str, Any]], every: list[dict[str, Any]]) -> dict[str, Any]:
    codec, link, batches = (cells[0][key] for key in ("codec", "link", "in_flight"))

    def spread(values: list[float]) -> dict[str, Any]:
        return {"median": sorted(values)[len(values) // 2], "low": min(values), "high": max(values), "n": len(values)}

    speedup = {}
    at = link, batches
    for base in ("fp32", "uq"):
        ratios = [
            mine["images_per_s"] / other["images_per_s"]
            for mine in cells for other in every
            if (other["codec"], (other["link"], other["in_flight"]), other["repeat"]) == (base, at, mine["repeat"])
        ]  # fmt: skip
        if codec != base and ratios:
            speedup[base] = spread(ratios)
    middle = cells[1]
    link_seconds = _link_seconds(codec, link, batches)
    return {
        "codec": codec, "link": link, "in_flight": batches, "speedup": speedup,
        "images_per_s": spread([cell["images_per_s"] for cell in cells]),
        "bytes_up_per_image": sum(middle["bytes_per_image"]["up"].values()),
        "bytes_down_per_image": sum(middle["bytes_per_image"]["down"].values()),
        "link_bound_images_per_s": 1 / link_seconds if link_seconds else None,
        **{key: middle[key] for key in ("latency_s", "seconds_per_image", "staleness", "cpu_seconds_per_image",
                                        "peak_memory_bytes", "joules_per_image")},
    }  # fmt: skip


def make_measure(model: str = "mobilenet_v1") -> dict[str, Any]:
    """A record of all codecs over all links, and of sgq and uq at depths 2 and 4 over the long link."""
    places = [(codec, link, 1) for link in LINKS for codec in CODECS]
    places += [(codec, "10mbit+50ms", depth) for codec in ("uq", "sgq") for depth in (2, 4)]
    cells = [_cell(*place, repeat) for repeat in range(3) for place in places]
    groups = [[cell for cell in cells if (cell["codec"], cell["link"], cell["in_flight"]) == place] for place in places]
    machine = {
        "python": "3.11.7", "system": "Linux 6.1", "processor": "a made-up processor at 2.8 GHz", "cores": 2,
        "memory_bytes": 8 << 30, "versions": {"edgekit": "0.1.0", "numpy": "2.4.6", "onnxruntime": "1.31.1"},
        "clocks": {"governor": None, "mhz": [2800.0, 2795.3], "locked": None}, "power_mode": None,
        "temperatures_c": {},
    }  # fmt: skip
    zero = dict.fromkeys(("jitter_s", "stall_s", "stall_every_s"), 0.0)
    names = {"sgq": "sgq:groups=8,bits=4,coding=context+sparse-masked:step=4"}
    return {
        "format": "edgekit-measure", "version": 1, "time": "2026-11-21T06:00:00Z",
        "command": ["edgekit", "measure", model, "--codecs", ",".join(CODECS), "--links", ",".join(LINKS)],
        "setting": {
            "model": model, "cut": "blocks.3.depthwise", "feature": [128, 8, 8], "dataset": "cifar10", "batch": BATCH,
            "in_flight": [1, 2, 4], "device": "cpu", "backend": "onnxruntime", "threads": {"device": 1, "server": 1},
            "cores": {"device": [0], "server": [1]}, "seconds": 10.0, "warm_up_steps": 3, "repeats": 3, "seed": 0,
        },
        "machine": {"device": machine, "server": {**machine, "versions": {"edgekit": "0.1.0", "torch": "2.13.0+cpu"}}},
        "codecs": {
            name: {"method": names.get(name, name), "codec": codec, "config": {}, "gradient": "none",
                   "formula_bytes_up_per_image": formula, "bundle": "0" * 64}
            for name, (codec, _, _, formula, _) in CODECS.items()
        },
        "links": {
            name: about and {"up_bit_s": about[0], "down_bit_s": about[0], "round_trip_s": about[1], **zero}
            for name, about in LINKS.items()
        },
        "cells": cells,
        "encoding": [
            {"codec": name, "repeat": repeat, "images_per_s": factor * 900 / (1 + i), "joules_per_image": None,
             "latency_s": {"p50": 0.0355 * (1 + i), "p95": 0.037 * (1 + i), "p99": 0.041 * (1 + i)}}
            for i, name in enumerate(CODECS) for repeat, factor in enumerate(REPEATS)
        ],
        "results": [_result(group, cells) for group in groups],
        "limits": {
            name: {"1": {"compute_bound_images_per_s": 1 / compute, "binds_below_bit_s": 8 * (up + down) / compute}}
            for name, (_, up, down, _, compute) in CODECS.items()
        },
        "paper": {"speedup_over_uniform": 9.22, "source": "SGQ, Zhou et al., NeurIPS 2022, abstract"},
        "warnings": ["the clocks of this machine cannot be locked: rates may drift"],
    }  # fmt: skip


def make_run(codec: str = "sgq", in_flight: int = 1, devices: int = 2, epochs: int = 3) -> list[dict[str, Any]]:
    """Events of a run: each epoch 640 images a device at 50 images/s, 280 B up and 600 B down an image."""
    config = {"sgq": {"groups": 8, "bits": 4}, "uniform": {"bits": 4}}.get(codec, {})
    run = {
        "model": "mobilenet_v1", "codec": codec, "codec_config": config, "dataset": "digits", "limit": None,
        "devices": devices, "epochs": epochs, "batch": BATCH, "in_flight": in_flight, "calibrate": "stochastic-masked",
        "formula_bytes_up_per_image": 256.0, "lr": 0.05, "seed": 0,
    }  # fmt: skip
    command = ["train", "mobilenet_v1", "--codec", codec, "--out", "DIR"]
    events: list[dict[str, Any]] = [{**run, "event": "start", "time": 1795241819.4, "command": command}]
    for epoch in range(1, epochs + 1):
        for device in range(devices):
            events.append({
                "event": "epoch", "device": f"device-{device}", "epoch": epoch, "images": 640 * epoch,
                "loss": float("nan"),
                "accuracy": 90.0 - 40 / epoch + device - in_flight, "images_per_s": 50.0,
                "bytes_up": 280 * 640 * epoch, "bytes_down": 600 * 640 * epoch,
                **({"codebook": {"perplexity": 12.0 + epoch / 2, "distortion": 0.5 / epoch, "dead_codewords": 0}}
                   if codec == "sgq" else {}),
            })  # fmt: skip
    images = 640 * epochs * devices
    events.append({
        **run, "event": "summary", "accuracy": 77.0, "images": images, "bytes_up_per_image": 280.0,
        "bytes_down_per_image": 600.0, "images_per_s": 100.0, "staleness": in_flight - 1.0,
        "bytes_by_kind": {"up.feature": 270 * images, "up.codebook": 10 * images, "up.evaluate": 999 * images,
                          "down.gradient": 600 * images},
        "seconds": {"device_compute": 19.2, "encode": 0.96, "network": 3.84, "server": 14.4, "evaluate": 3.0,
                    "train": 38.4},
    })  # fmt: skip
    return events


def make_fleet_run() -> list[dict[str, Any]]:
    """Events of a run of three devices in step, of which one is put in quarantine in the second of three epochs.

    Each device tests a third of the test images: 30, 30 and 40 of them.
    """
    run = {"model": "vgg11", "codec": "sgq", "codec_config": {}, "dataset": "digits", "devices": 3, "epochs": 3,
           "class_names": ["nought", "one", "<two>"]}  # fmt: skip
    events: list[dict[str, Any]] = [{**run, "event": "start", "time": 1795241819.4, "command": ["train", "vgg11"]}]
    for epoch in range(1, 4):
        devices = range(3) if epoch == 1 else range(2)
        images = 100 if epoch == 1 else 60
        if epoch == 2:
            reason = "12 messages that do not parse"
            events.append({"event": "quarantined", "device": "device-2", "reason": reason, "process": "server"})
        events.append({
            "event": "tested", "epoch": epoch, "devices": len(devices), "images": images, "accuracy": 50.0 + epoch,
            "test_loss": 2.0 / epoch, "validation_accuracy": 60.0, "validation_loss": 1.5 / epoch, "best": True,
            "process": "server",
        })  # fmt: skip
        for device in devices:
            events.append({
                "event": "epoch", "device": f"device-{device}", "epoch": epoch, "images": (100 + 100 * device) * epoch,
                "loss": 1.0 + device, "accuracy": 10.0 * device, "images_per_s": 50.0, "test_loss": 9.0,
                "bytes_up": 1000 * epoch, "bytes_down": 2000 * epoch,
                "by_class": {"images": [10, 10, 10], "correct": [1, 2, 3]}, "balanced_accuracy": 20.0,
                "fleet": {"images": images, "accuracy": 50.0 + epoch, "test_loss": 2.0 / epoch, "best": True},
            })  # fmt: skip
    events.append({
        **run, "event": "summary", "accuracy": 53.0, "balanced_accuracy": 52.5, "images": 900,
        "accuracy_by_device": {"device-0": 50.0, "device-1": 56.0},
        "balanced_accuracy_by_device": {"device-0": 49.0, "device-1": 56.0},
        "train_accuracy_by_device": {"device-0": 70.0, "device-1": 71.0},
        "images_by_device": {"device-0": 300, "device-1": 600},
        "accuracy_by_class": [80.0, 25.0, None], "images_tested_by_class": [20, 40, 0], "test_loss": 0.67,
        "validation_accuracy": 60.0, "validation_loss": 0.5,
        "quarantined": {"device-2": "12 messages that do not parse"},
        "fleet": {"steps": 30, "steps_without_some": 2, "rounds": 3, "late_updates": 1, "repeatable": False},
        "bytes_up_per_image": 10.0, "bytes_down_per_image": 20.0, "images_per_s": 100.0,
        "bytes_by_kind": {"up.feature": 8000, "up.update": 1000, "down.gradient": 18000},
        "seconds": {"device_compute": 1.0, "encode": 0.5, "network": 0.25, "server": 1.0, "round": 0.25, "train": 3.0},
    })  # fmt: skip
    return events


def make_scaling() -> dict[str, Any]:
    """A record of sgq in two modes: in sync mode a server that binds from four devices on, at 300 images/s."""
    results = []
    for mode in ("sync", "async"):
        for devices in (1, 2, 4, 8):
            rate = min(100.0 * devices, 300.0) if mode == "sync" else 90.0 * devices
            results.append({
                "codec": "sgq", "link": "loopback", "mode": mode, "devices": devices,
                **{name: {"median": value, "low": 0.9 * value, "high": 1.1 * value, "n": 3}
                   for name, value in (("images_per_s", rate), ("device_rates", 1.02 * rate),
                                       ("accuracy", 80 - devices),
                                       ("speedup", rate / (100 if mode == "sync" else 90)))},
                "efficiency": rate / (100 if mode == "sync" else 90) / devices,
                "bytes_up_per_image": 180.0 + devices, "bytes_down_per_image": 280.0 + devices,
                "seconds_per_image": {"device_compute": 0.008, "encode": 0.001, "network": 0.0, "server": 0.0005,
                                      "round": 0.0005},
                "cpu_seconds_per_image": {"device": 0.009, "server": 0.0033, "link": 0.0, "measuring": 0.0001},
                "busy": {"device": 0.1, "server": 0.0033 * rate, "link": 0.0, "measuring": 0.01},
                "binds": "server" if rate == 300.0 else "devices",
            })  # fmt: skip
    setting = {"model": "vgg11", "cut": "features.7", "feature": [128, 8, 8], "dataset": "digits", "images": 8622,
               "epochs": 6, "limit": 1437, "batch": 32, "in_flight": 1, "devices": [1, 2, 4, 8], "cores": 4,
               "modes": ["sync", "async"], "device": "cpu", "device_share": 0.125, "repeats": 3,
               "threads": {"device": 1, "server": 1}}  # fmt: skip
    return {
        "format": "edgekit-scaling", "version": 1, "time": "2026-11-28T06:00:00Z", "setting": setting,
        "command": ["edgekit", "measure", "vgg11", "--devices", "1,2,4,8", "--device-share", "0.125"],
        "machine": make_measure()["machine"]["device"], "links": {"loopback": None},
        "codecs": {"sgq": {"method": "sgq:groups=8,bits=5+dct:zone=2", "codec": "sgq"}},
        "cells": [], "results": results, "warnings": ["8 device processes and the server share 4 cores"],
    }  # fmt: skip


def make_to_accuracy(line: str = "computed") -> dict[str, Any]:
    """A record of uq, which gets to 75 and to 80 %, and sgq, which is 10 times as fast, but never at 80 %."""
    codecs = {"uq": ("uniform", [60.0, 75.0, 82.0], 1_000_000), "sgq": ("sgq", [50.0, 70.0, 76.0], 50_000)}
    links = {"1mbit": (1e6, 0.0), "10mbit": (1e7, 0.05)}
    trainings, results = [], []
    for name, (_, curve, size) in codecs.items():
        epochs = [
            {"epoch": i, "images": 100 * i, "steps": 4 * i, "accuracy": accuracy, "bytes_up": size * i,
             "bytes_down": 3 * size * i, "seconds": {"train": 2.0 * i}} for i, accuracy in enumerate(curve, 1)
        ]  # fmt: skip
        over = list(links) if line == "measured" else [None]
        trainings += [{"codec": name, "link": link, "seed": 0, "epochs": epochs, "collapsed": None, "others_cpu": 0.0}
                      for link in over]  # fmt: skip
    for link in links:
        for name, (_, curve, size) in codecs.items():
            seconds = [(size / 10_000 + (link == "10mbit")) * i for i in (1, 2, 3)]
            reached = []
            for wanted in (75.0, 80.0):
                found = next((i for i, accuracy in enumerate(curve, 1) if accuracy >= wanted), None)
                reached.append({
                    "accuracy": wanted, "epoch": found, "images": found and 100 * found,
                    "seconds": found and seconds[found - 1], "bytes_up": found and size * found,
                    "bytes_down": found and 3 * size * found, "times": found and (1.0 if name == "uq" else 13.5),
                })  # fmt: skip
            results.append({
                "codec": name, "link": link, "seconds": seconds, "best": {"accuracy": max(curve), "epoch": 3},
                "reached": reached,
            })  # fmt: skip
    return {
        "format": "edgekit-to-accuracy", "version": 1, "time": "2026-11-28T06:00:00Z", "line": line,
        "command": ["edgekit", "measure", "vgg11", "--to-accuracy", "75,80", "--line", line],
        "accuracies": [75.0, 80.0], "against": "uq",
        "setting": {"model": "vgg11", "cut": "features.7", "feature": [128, 8, 8], "dataset": "digits", "limit": 100,
                    "epochs": 3, "evaluate_every": 1, "batch": 25, "in_flight": 1, "device": "cpu"},
        "machine": make_measure()["machine"]["device"],
        "codecs": {name: {"method": name, "codec": codec} for name, (codec, _, _) in codecs.items()},
        "links": {name: {"up_bit_s": rate, "down_bit_s": rate, "round_trip_s": trip}
                  for name, (rate, trip) in links.items()},
        "trainings": trainings, "results": results, "warnings": ["the machine was busy"],
    }  # fmt: skip


@pytest.fixture
def fleet_run() -> list[dict[str, Any]]:
    """The events of a record of devices in step."""
    return make_fleet_run()


@pytest.fixture
def scaling() -> dict[str, Any]:
    """The content of a record of scaling."""
    return make_scaling()


@pytest.fixture
def to_accuracy() -> dict[str, Any]:
    """The content of a record of the time to an accuracy."""
    return make_to_accuracy()


@pytest.fixture
def measure() -> dict[str, Any]:
    """The content of a measure record."""
    return make_measure()


@pytest.fixture
def run() -> list[dict[str, Any]]:
    """The events of a training record."""
    return make_run()


def make_federated() -> list[dict[str, Any]]:
    """The events of a record of federated learning, three rounds, of which two are tested."""
    told: list[dict[str, Any]] = [{"accuracy": 50.0}, {}, {"accuracy": 40.0}]
    sizes = {"clients": 2, "bytes_up": 1e6, "bytes_down": 4e6, "bytes_whole": 2_000_000, "formula_bytes_up": 5e5}
    start = {
        "event": "start", "model": "vgg11_thin", "dataset": "digits", "strategy": "fedavg", "update_codec": "fsfl",
        "down_codec": "none", "clients": 2, "rounds": 3, "command": ["federate", "vgg11_thin"], "time": 1.0,
    }  # fmt: skip
    rounds = [{"event": "round", "round": number, **sizes, **more} for number, more in enumerate(told, 1)]
    return [start, *rounds, {"event": "summary"}]


@pytest.fixture
def federated() -> list[dict[str, Any]]:
    """The events of a record of federated learning."""
    return make_federated()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Records of measuring, scaling, to an accuracy, of runs, federated learning and a table of accuracy, as files."""
    place = tmp_path_factory.mktemp("records")
    table = Path(__file__).parents[2] / "bench" / "results" / "accuracy.json"
    paths = []
    for model in ("mobilenet_v1", "vgg11"):
        paths.append(place / f"{model}.json")
        paths[-1].write_text(json.dumps(make_measure(model)), encoding="utf-8")
    for codec, depth in (("sgq", 1), ("sgq", 2), ("uniform", 1), ("raw", 1)):
        paths.append(place / f"{codec}-{depth}.jsonl")
        paths[-1].write_text("".join(json.dumps(event) + "\n" for event in make_run(codec, depth)), encoding="utf-8")
    (place / "scaling.json").write_text(json.dumps(make_scaling()), encoding="utf-8")
    for line in ("computed", "measured"):
        paths.append(place / f"{line}.json")
        paths[-1].write_text(json.dumps(make_to_accuracy(line)), encoding="utf-8")
    federated = "".join(json.dumps(event) + "\n" for event in make_federated())
    (place / "federated.jsonl").write_text(federated, encoding="utf-8")
    fleet = "".join(json.dumps(event) + "\n" for event in make_fleet_run())
    (place / "fleet.jsonl").write_text(fleet, encoding="utf-8")
    names = ("scaling.json", "fleet.jsonl", "federated.jsonl")
    return [str(path) for path in [*paths, table, *(place / name for name in names)]]
