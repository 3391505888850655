"""The schema of each kind of record; a field that a report does not need may be missing."""

from edgekit.report.schema import AMOUNT, ANY, COUNT, FLAG, NUMBER, TEXT, TIME, Maybe

QUANTILES = Maybe({"p50": Maybe(AMOUNT), "p95": Maybe(AMOUNT), "p99": Maybe(AMOUNT)})
SPREAD = {"median": AMOUNT, "low": AMOUNT, "high": AMOUNT}
PER_SIDE = Maybe({str: Maybe(AMOUNT)})
MACHINE = Maybe(
    {
        "python": Maybe(TEXT),
        "system": Maybe(TEXT),
        "processor": Maybe(TEXT),
        "cores": Maybe(ANY),
        "memory_bytes": Maybe(AMOUNT),
        "versions": Maybe({str: Maybe(TEXT)}),
        "clocks": Maybe({"governor": Maybe(TEXT), "mhz": Maybe([NUMBER]), "locked": Maybe(FLAG)}),
        "power_mode": Maybe(TEXT),
        "temperatures_c": Maybe({str: Maybe(NUMBER)}),
    }
)

MEASURE = {
    "command": Maybe([TEXT]),
    "time": Maybe(TEXT),
    "setting": {
        "model": TEXT,
        "cut": Maybe(TEXT),
        "feature": Maybe([COUNT]),
        "dataset": Maybe(TEXT),
        "batch": Maybe(COUNT),
        "device": Maybe(TEXT),
        "host": Maybe(TEXT),
        "backend": Maybe(TEXT),
        "seconds": Maybe(AMOUNT),
        "repeats": Maybe(COUNT),
        "warm_up_steps": Maybe(COUNT),
        "threads": Maybe({str: Maybe(COUNT)}),
        "cores": Maybe({str: Maybe([COUNT])}),
    },
    "machine": Maybe({"device": MACHINE, "server": MACHINE}),
    "codecs": {str: {"method": TEXT, "codec": Maybe(TEXT), "formula_bytes_up_per_image": Maybe(AMOUNT)}},
    "links": {
        str: Maybe(
            {
                "up_bit_s": AMOUNT,
                "down_bit_s": AMOUNT,
                "round_trip_s": Maybe(AMOUNT),
                "jitter_s": Maybe(AMOUNT),
                "stall_s": Maybe(AMOUNT),
                "stall_every_s": Maybe(AMOUNT),
            }
        )
    },
    "cells": [
        {
            "codec": TEXT,
            "link": TEXT,
            "in_flight": COUNT,
            "images": COUNT,
            "bytes_per_image": {"up": {str: AMOUNT}, "down": {str: AMOUNT}},
        }
    ],
    "encoding": Maybe([{"codec": TEXT, "images_per_s": AMOUNT, "latency_s": QUANTILES}]),
    "results": [
        {
            "codec": TEXT,
            "link": TEXT,
            "in_flight": COUNT,
            "images_per_s": SPREAD,
            "speedup": Maybe({str: Maybe(SPREAD)}),
            "latency_s": QUANTILES,
            "seconds_per_image": Maybe({str: Maybe(AMOUNT)}),
            "staleness": Maybe(AMOUNT),
            "cpu_seconds_per_image": PER_SIDE,
            "peak_memory_bytes": PER_SIDE,
            "joules_per_image": Maybe(AMOUNT),
        }
    ],
    "limits": Maybe(
        {str: {str: {"compute_bound_images_per_s": Maybe(AMOUNT), "binds_below_bit_s": Maybe(AMOUNT)}}}
    ),
    "paper": Maybe({"speedup_over_uniform": AMOUNT, "source": Maybe(TEXT)}),
    "warnings": Maybe([TEXT]),
}  # fmt: skip

CODEBOOK = Maybe({"perplexity": AMOUNT, "distortion": AMOUNT, "dead_codewords": Maybe(COUNT)})
#: The "start" event; the "summary" repeats it.
RUN = {
    "model": TEXT,
    "codec": TEXT,
    "codec_config": Maybe({str: ANY}),
    "dataset": Maybe(TEXT),
    "calibrate": Maybe(TEXT),
    "limit": Maybe(COUNT),
    "devices": Maybe(COUNT),
    "epochs": Maybe(COUNT),
    "batch": Maybe(COUNT),
    "in_flight": Maybe(COUNT),
    "link": Maybe(TEXT),
    "lr": Maybe(AMOUNT),
    "seed": Maybe(COUNT),
    "command": Maybe([TEXT]),
    "time": Maybe(TIME),
}
EPOCH = {
    "device": TEXT,
    "epoch": COUNT,
    "images": COUNT,
    "accuracy": AMOUNT,
    "bytes_up": AMOUNT,
    "bytes_down": AMOUNT,
    "images_per_s": AMOUNT,
    "codebook": CODEBOOK,
}
SUMMARY = {
    **RUN,
    "accuracy": AMOUNT,
    "images": COUNT,
    "bytes_up_per_image": AMOUNT,
    "bytes_down_per_image": AMOUNT,
    "formula_bytes_up_per_image": Maybe(AMOUNT),
    "bytes_by_kind": {str: AMOUNT},
    "images_per_s": AMOUNT,
    "staleness": Maybe(AMOUNT),
    "seconds": {str: AMOUNT},
}

ACCURACY = [
    {
        "model": TEXT,
        "dataset": TEXT,
        "method": TEXT,
        "codec": TEXT,
        "limit": Maybe(COUNT),
        "n_epochs": COUNT,
        "accuracy": AMOUNT,
        "accuracies": Maybe([AMOUNT]),
        "bytes_up": AMOUNT,
        "bytes_down": AMOUNT,
        "formula_bytes_up": Maybe(AMOUNT),
        "curve": Maybe([[NUMBER]]),
        "command": Maybe([TEXT]),
        "versions": Maybe({str: TEXT}),
    }
]
