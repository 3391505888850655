"""Every built-in model for every board at 4 bits: passed, or refused and why.

``python bench/matrix.py [--models A,B] [--devices X,Y] [--input 3,32,32] [--json FILE] [--resume]``: each cell is what
`edgekit export`, with the board's norm policy, and `edgekit check` do: a bundle from the digits in a temporary folder,
then onnx.checker, the board's rules, the golden data on ONNX Runtime, and onnx's reference evaluator; and the golden
data against PyTorch, which it does not come from. The matrix and, beneath it, every reason whole go to standard output;
`--json` writes the cells as they come, and `--resume` keeps those that the file has already. Ends with 1 when a cell
was exported but did not pass.
"""

import json
import os
import re
import sys
import tempfile
import textwrap
from typing import Any

import record
import torch
from arguments import Arguments

from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.data.base import Dataset
from edgekit.device_profiles.registry import profile, profiles
from edgekit.errors import EdgekitError
from edgekit.export.models.registry import MODELS
from edgekit.export.named import export_named
from edgekit.export.parity.check import check_bundle
from edgekit.export.settings import BoardSettings, Calibration, Coding, NamedNetwork

CODEC = {"groups": 8, "bits": 4}
#: Images that the codebooks come from, and the batch of deployed graphs where it is static.
CALIBRATION, BATCH = 64, 2


def cell(model: str, device: str, input_shape: str, dataset: Dataset) -> dict[str, Any]:
    """The result for one model on one board: "passed", "refused" by the export, or "failed" in the check."""
    row: dict[str, Any] = {"model": model, "device": device, "input": input_shape}
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = export_named(
                os.path.join(folder, "bundle"),
                NamedNetwork(model, input_shape=input_shape),
                Calibration(dataset, CALIBRATION),
                Coding(feature_codec("sgq", CODEC)),
                BoardSettings(device, profile(device).target.norm, BATCH),
            )
        except EdgekitError as error:
            return {**row, "result": "refused", "error": type(error).__name__, "reason": str(error)}
        row |= {"cut": bundle.cut, "feature": list(bundle.feature_shape), "norm": bundle.norm}
        row["sha256"] = {spec.file: bundle.manifest["files"][spec.file]["sha256"] for spec in bundle.graphs.values()}
        try:
            report = check_bundle(bundle)
        except EdgekitError as error:
            return {**row, "result": "failed", "error": type(error).__name__, "reason": str(error)}
    row["checks"] = {c.name: c.passed if c.value is None else c.value for c in report.checks}
    row["half_scores"] = report.half_scores and report.half_scores._asdict()
    if report.failed:
        reason = "; ".join(f"{c.name}: got {c.got}, expected {c.expected}" for c in report.failed)
        return {**row, "result": "failed", "reason": reason}
    return {**row, "result": "passed", "reason": ""}


def matrix(cells: list[dict[str, Any]]) -> str:
    """The cells as a Markdown table, models down and boards across, and every reason beneath."""
    models, devices = (list(dict.fromkeys(c[key] for c in cells)) for key in ("model", "device"))
    reasons = list(dict.fromkeys(c["reason"] for c in cells if c["reason"]))
    told = {(c["model"], c["device"]): c["result"] for c in cells}
    for c in cells:
        if c["reason"]:
            rule = re.search(r"rule [\w-]+", c["reason"])
            short = rule.group() if rule else textwrap.shorten(c["reason"], 40, placeholder=" ...")
            told[c["model"], c["device"]] += f": {short} [{1 + reasons.index(c['reason'])}]"
    rows = [["", *devices], ["---"] * (1 + len(devices))]
    rows += [[model, *(told.get((model, device), "") for device in devices)] for model in models]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    counts = [f"{sum(c['result'] == r for c in cells)} {r}" for r in ("passed", "refused", "failed")]
    notes = [f"[{i}] {reason}" for i, reason in enumerate(reasons, 1)]
    return "\n".join([*table, "", f"{len(cells)} cells: {', '.join(counts)}", *notes])


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models=",".join(MODELS), devices=",".join(profiles()), input="3,32,32", json=None, resume=False)
    options = arguments.parse_args()
    if options.resume and not options.json:
        arguments.error("--resume continues the file that --json names")
    torch.set_num_threads(1)
    made: dict[str, Any] = {
        **record.head("edgekit", "numpy", "onnx", "onnxruntime", "torch"),
        "codec": {"id": "sgq", **CODEC},
        "calibration": CALIBRATION,
        "static_batch": BATCH,
        "cells": [],
    }
    if options.resume and os.path.exists(options.json):
        before = record.read(options.json)
        changed = [key for key in made if key not in ("command", "cells") and before.get(key) != made[key]]
        if changed:
            arguments.error(f"{options.json} was made with other {', '.join(changed)}: run without --resume")
        made["cells"] = before["cells"]
    known = {(c["model"], c["device"], c["input"]): c for c in made["cells"]}
    dataset = registry.load("digits", None)
    models, devices = options.models.split(","), options.devices.split(",")
    unknown = [name for name in models if name not in MODELS] + [name for name in devices if name not in profiles()]
    if unknown:
        arguments.error(f"{', '.join(unknown)}: there are {', '.join([*MODELS, *profiles()])}")
    wanted = [(model, device, options.input) for model in models for device in devices]
    for i, key in enumerate(wanted, 1):
        if key not in known:
            known[key] = cell(*key, dataset)
            made["cells"].append(known[key])
            if options.json:
                _write(options.json, made)
        sys.stderr.write(f"{i}/{len(wanted)} {key[0]} for {key[1]}: {known[key]['result']}\n")
    chosen = [known[key] for key in wanted]
    sys.stdout.write(matrix(chosen) + "\n")
    sys.exit(any(c["result"] == "failed" for c in chosen))


def _write(path: str, made: dict[str, Any]) -> None:
    """One cell a line."""
    cells = ",\n  ".join(json.dumps(each) for each in made["cells"])
    text = json.dumps({**made, "cells": []}, indent=1).replace('"cells": []', f'"cells": [\n  {cells}\n ]')
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(path + ".new", path)


if __name__ == "__main__":
    main()
