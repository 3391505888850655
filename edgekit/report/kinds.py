"""The schema of each kind of record; a field that a report does not need may be missing."""

from typing import Any

from edgekit.report.schema import AMOUNT, ANY, COUNT, FLAG, NUMBER, TEXT, TIME, Maybe, one_of


def fields(names: str, schema: Any) -> dict[str, Any]:
    """The same schema for each of `names`, which are separated by spaces."""
    return dict.fromkeys(names.split(), schema)


QUANTILES = Maybe(fields("p50 p95 p99", Maybe(AMOUNT)))
SPREAD = fields("median low high", AMOUNT)
PER_SIDE = Maybe({str: Maybe(AMOUNT)})
MACHINE = Maybe(
    {
        **fields("python system processor power_mode", Maybe(TEXT)),
        "memory_bytes": Maybe(AMOUNT),
        "versions": Maybe({str: Maybe(TEXT)}),
        "clocks": Maybe({"governor": Maybe(TEXT), "mhz": Maybe([NUMBER]), "locked": Maybe(FLAG)}),
        "temperatures_c": Maybe({str: Maybe(NUMBER)}),
    }
)
LINK = {
    **fields("up_bit_s down_bit_s", AMOUNT),
    **fields("round_trip_s jitter_s stall_s stall_every_s", Maybe(AMOUNT)),
}

MEASURE = {
    "command": Maybe([TEXT]),
    "time": Maybe(TEXT),
    "setting": {
        "model": TEXT,
        **fields("cut dataset device host backend provider", Maybe(TEXT)),
        **fields("batch repeats warm_up_steps", Maybe(COUNT)),
        "feature": Maybe([COUNT]),
        "seconds": Maybe(AMOUNT),
        "threads": Maybe({str: Maybe(COUNT)}),
        "cores": Maybe({str: Maybe([COUNT])}),
    },
    "machine": Maybe(fields("device server", MACHINE)),
    "codecs": {str: {"method": TEXT, "codec": Maybe(TEXT), "formula_bytes_up_per_image": Maybe(AMOUNT)}},
    "links": {str: Maybe(LINK)},
    "cells": [
        {
            **fields("codec link", TEXT),
            **fields("in_flight images", COUNT),
            "bytes_per_image": fields("up down", {str: AMOUNT}),
        }
    ],
    "encoding": Maybe([{"codec": TEXT, "images_per_s": AMOUNT, "latency_s": QUANTILES}]),
    "results": [
        {
            **fields("codec link", TEXT),
            "in_flight": COUNT,
            "images_per_s": SPREAD,
            "speedup": Maybe({str: Maybe(SPREAD)}),
            "latency_s": QUANTILES,
            **fields("seconds_per_image cpu_seconds_per_image peak_memory_bytes", PER_SIDE),
            **fields("staleness joules_per_image", Maybe(AMOUNT)),
        }
    ],
    "limits": Maybe({str: {str: fields("compute_bound_images_per_s binds_below_bit_s", Maybe(AMOUNT))}}),
    "paper": Maybe({"speedup_over_uniform": AMOUNT, "source": Maybe(TEXT)}),
    "warnings": Maybe([TEXT]),
}

SCALING = {
    "command": Maybe([TEXT]),
    "time": Maybe(TEXT),
    "setting": {
        "model": TEXT,
        **fields("cut dataset device", Maybe(TEXT)),
        **fields("batch repeats epochs images limit in_flight cores", Maybe(COUNT)),
        "feature": Maybe([COUNT]),
        "device_share": Maybe(AMOUNT),
        "threads": Maybe({str: Maybe(COUNT)}),
    },
    "machine": Maybe(MACHINE),
    "codecs": {str: {"method": TEXT, "codec": Maybe(TEXT)}},
    "links": {str: Maybe(LINK)},
    "results": [
        {
            **fields("codec link mode", TEXT),
            "devices": COUNT,
            "images_per_s": SPREAD,
            "accuracy": Maybe(SPREAD),
            "device_rates": Maybe(SPREAD),
            "speedup": Maybe(SPREAD),
            "efficiency": Maybe(AMOUNT),
            **fields("bytes_up_per_image bytes_down_per_image", AMOUNT),
            **fields("seconds_per_image cpu_seconds_per_image busy", PER_SIDE),
            "binds": Maybe(TEXT),
        }
    ],
    "warnings": Maybe([TEXT]),
}

TO_ACCURACY = {
    "command": Maybe([TEXT]),
    "time": Maybe(TEXT),
    "rates": Maybe({"images_per_s": {str: AMOUNT}}),
    "line": one_of("computed", "measured"),
    "accuracies": [AMOUNT],
    "against": TEXT,
    "setting": {
        "model": TEXT,
        **fields("cut dataset device provider", Maybe(TEXT)),
        "epochs": COUNT,
        **fields("batch limit in_flight evaluate_every", Maybe(COUNT)),
        "feature": Maybe([COUNT]),
        "threads": Maybe({str: Maybe(COUNT)}),
    },
    "machine": Maybe(MACHINE),
    "codecs": {str: {"method": TEXT, "codec": Maybe(TEXT)}},
    "links": {str: Maybe(LINK)},
    "trainings": [
        {
            "codec": TEXT,
            "link": Maybe(TEXT),
            "command": Maybe([TEXT]),
            "epochs": [
                {
                    **fields("epoch images steps", COUNT),
                    **fields("accuracy bytes_up bytes_down", AMOUNT),
                    "seconds": {"train": AMOUNT},
                }
            ],
        }
    ],
    "results": [
        {
            **fields("codec link", TEXT),
            "seconds": [AMOUNT],
            "best": {"accuracy": AMOUNT, "epoch": COUNT},
            "reached": [
                {
                    "accuracy": AMOUNT,
                    "epoch": Maybe(COUNT),
                    **fields("seconds bytes_up bytes_down times", Maybe(AMOUNT)),
                }
            ],
        }
    ],
    "warnings": Maybe([TEXT]),
}

#: The "start" event; the "summary" repeats it.
RUN = {
    **fields("model codec", TEXT),
    "codec_config": Maybe({str: ANY}),
    **fields("dataset calibrate link augment", Maybe(TEXT)),
    **fields("limit devices epochs batch in_flight seed", Maybe(COUNT)),
    "lr": Maybe(AMOUNT),
    "command": Maybe([TEXT]),
    "time": Maybe(TIME),
    "class_names": Maybe([TEXT]),
}
EPOCH = {
    "device": TEXT,
    **fields("epoch images", COUNT),
    **fields("bytes_up bytes_down images_per_s", AMOUNT),
    # Not every epoch need end with a test. A loss that is no number any more is not drawn.
    "accuracy": Maybe(AMOUNT),
    "codebook": Maybe({"perplexity": AMOUNT, "distortion": AMOUNT, "dead_codewords": Maybe(COUNT)}),
}
SUMMARY = {
    **RUN,
    "images": COUNT,
    **fields("accuracy bytes_up_per_image bytes_down_per_image images_per_s", AMOUNT),
    **fields("formula_bytes_up_per_image staleness balanced_accuracy validation_accuracy", Maybe(AMOUNT)),
    **fields("bytes_by_kind seconds", {str: AMOUNT}),
    **fields("accuracy_by_device balanced_accuracy_by_device train_accuracy_by_device", Maybe({str: Maybe(AMOUNT)})),
    "images_by_device": Maybe({str: COUNT}),
    "accuracy_by_class": Maybe([Maybe(AMOUNT)]),
    "images_tested_by_class": Maybe([COUNT]),
    "quarantined": Maybe({str: TEXT}),
    "fleet": Maybe({**fields("steps steps_without_some rounds late_updates", Maybe(COUNT)), "repeatable": Maybe(FLAG)}),
}
#: Of the server: what the tests of all devices at the end of an epoch came to.
TESTED = {
    **fields("epoch images", COUNT),
    "accuracy": AMOUNT,
    "validation_accuracy": Maybe(AMOUNT),
    "best": Maybe(FLAG),
}
QUARANTINED = fields("device reason", TEXT)
#: Of `edgekit federate`.
FEDERATED = {
    **fields("model strategy update_codec down_codec", TEXT),
    "dataset": Maybe(TEXT),
    **fields("clients rounds", COUNT),
    "command": Maybe([TEXT]),
    "time": Maybe(TIME),
}
FEDERATED_ROUND = {
    **fields("round clients", COUNT),
    **fields("bytes_up bytes_down bytes_whole", AMOUNT),
    **fields("accuracy formula_bytes_up", Maybe(AMOUNT)),
}

ACCURACY = [
    {
        **fields("model dataset method codec", TEXT),
        "n_epochs": COUNT,
        **fields("accuracy bytes_up bytes_down", AMOUNT),
        "limit": Maybe(COUNT),
        "accuracies": Maybe([AMOUNT]),
        "formula_bytes_up": Maybe(AMOUNT),
        "curve": Maybe([[NUMBER]]),
        "command": Maybe([TEXT]),
        "versions": Maybe({str: TEXT}),
    }
]
