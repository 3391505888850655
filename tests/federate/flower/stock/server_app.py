"""The server of the stock app: FedAvg, wrapped or not; what came of it goes to the file `result`."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from task import accuracy, fresh

from edgekit.federate.flower.strategy import Compressed

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    said = context.run_config
    strategy = FedAvg()
    if said["codec"] != "none":
        down = None if said["down"] == "none" else said["down"]
        strategy = Compressed(strategy, codec=said["codec"], down=down)
    initial = ArrayRecord({name: Array(np.asarray(array)) for name, array in fresh().items()})
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=said["rounds"], timeout=300)
    weights = {name: array.numpy() for name, array in result.arrays.items()}
    came = {
        "accuracy": accuracy(weights, said["digits"]),
        "of_clients": {number: dict(record) for number, record in result.evaluate_metrics_clientapp.items()},
        "rounds": getattr(strategy, "rounds", []),
        "steps": float(weights["steps"]),
    }
    Path(said["result"]).write_text(json.dumps(came), encoding="utf-8")
