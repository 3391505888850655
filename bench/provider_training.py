"""Does a provider of ONNX Runtime learn what the CPU's does? Whole trainings on digits, of both, in real processes.

``python bench/provider_training.py --python FILE [--provider openvino] [--models A,B] [--input C,H,W] [--epochs N]
[--seeds N] [--out FILE]``: for every model and seed a bundle for the provider, a server, and one device of the Python
in FILE, which has the provider, numpy and grpcio: once on the provider and once on the CPU. Accuracies on all test
images in percent, as JSON. ``--show FILE`` prints the table of such a record.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import markdown
import record
import sklearn
from arguments import Arguments

import edgekit
from edgekit.export.bundle import export_bundle
from edgekit.export.settings import BoardSettings, NamedNetwork

ROOT = Path(edgekit.__file__).parent.parent
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
CODEC = "sgq:groups=8,bits=5,coding=context"


def train(python: str, bundle: str, provider: str, epochs: int, seed: int) -> dict[str, Any]:
    """What a device on `python` comes to in the end, if it is `provider` that it learns on."""
    command = [sys.executable, "-m", "edgekit", "serve", bundle, "--listen", "127.0.0.1:0", "--devices", "1", "--json"]
    server = subprocess.Popen(
        [*command, "--seed", str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        # Where scikit-learn is not installed, digits are read from a copy of its file.
        data = Path(sklearn.__file__).parent / "datasets" / "data"
        device = [python, "-m", "edgekit.runtime", bundle, "--server", f"127.0.0.1:{port}", "--data", str(data)]
        device += ["--epochs", str(epochs), "--seed", str(seed), "--provider", provider, "--json"]
        done = subprocess.run(device, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, check=True)
    finally:
        server.terminate()
        server.communicate()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    opened = next(event for event in events if event["event"] == "opened")
    assert (opened["provider"], opened["wanted"], opened["learns_on"]) == (provider, provider, "onnxruntime"), opened
    return {key: round(events[-1][key], 3) for key in ("accuracy", "loss", "test_loss")}


def table(made: Any) -> str:
    """The record `made` in Markdown."""
    name = made["provider"]["name"]
    rows = [
        [model, str(row["seed"]), *(f"{row[each][key]:.2f}" for key in ("accuracy", "loss") for each in (name, "cpu"))]
        for model, rows in made["models"].items()
        for row in rows
    ]
    heads = ["model", "seed", f"accuracy on {name}", "on cpu", f"last training loss on {name}", "on cpu"]
    return markdown.table(heads, rows)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(
        python="",
        provider="openvino",
        models="vgg11_thin,mobilenet_v1",
        input="1,16,16",
        epochs=5,
        seeds=1,
    )
    options = arguments.parse_or_show(table)
    code = "import onnxruntime; print(onnxruntime.__version__)"
    version = subprocess.run([options.python, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    made = record.head("numpy", "onnxruntime")
    made["command"] = ["PYTHON" if word == options.python else word for word in made["command"]]
    made.update(
        provider={"name": options.provider, "onnxruntime": version},
        codec=CODEC,
        epochs=options.epochs,
        input=options.input,
    )
    made["models"] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models.split(","):
            made["models"][name] = rows = []
            for seed in range(options.seeds):
                path = os.path.join(folder, f"{name}-{seed}")
                board = BoardSettings(provider=options.provider)
                export_bundle(NamedNetwork(name, input_shape=options.input), path, codec=CODEC, board=board, seed=seed)
                runs = {
                    each: train(options.python, path, each, options.epochs, seed) for each in (options.provider, "cpu")
                }
                rows.append({"seed": seed, **runs})
                sys.stderr.write(f"{name} {json.dumps(rows[-1])}\n")
    record.finish(made, options.out)


if __name__ == "__main__":
    main()
