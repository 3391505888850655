"""The command lines of the processes that `train` starts: each setting becomes the flag of its name."""

from collections.abc import Mapping

from edgekit.launch.settings import Run


def server(run: Run, bundle: str, out: str) -> list[str]:
    """`edgekit serve` of the folder `bundle` at a free port, until all devices are done; the weights go to `out`."""
    chosen = run.server
    values = {
        "optimizer": chosen.optimizer,
        "lr": chosen.lr,
        "momentum": chosen.momentum,
        "weight_decay": chosen.weight_decay,
        "schedule": chosen.schedule,
        "gradient_codec": chosen.gradient_codec,
        "noise_filling": chosen.noise_filling,
        "torch_device": chosen.torch_device,
        "server_threads": chosen.threads,
        "seed": run.seed,
        "devices": run.training.devices,
    }
    return ["serve", bundle, "--listen", "127.0.0.1:0", "--json", "--out", out, *_flags(values)]


def link(run: Run, line: str, port: int) -> list[str]:
    """`edgekit link`: an emulated `line` to the server at `port`, until all devices have hung up."""
    values = {"to": f"127.0.0.1:{port}", "connections": run.training.devices, "seed": run.seed}
    return ["link", line, "--json", *_flags(values)]


def device(run: Run, bundle: str, out: str, index: int, port: int) -> list[str]:
    """`edgekit run` of the folder `bundle`: device number `index`, connected to `port`; its weights go to `out`."""
    data, training = run.data, run.training
    values = {
        "dataset": data.dataset,
        "data": data.folder,
        "limit": data.limit,
        "partition": training.partition,
        "epochs": training.epochs,
        "batch": training.batch,
        "in_flight": training.in_flight,
        "regroup_every": training.regroup_every,
        "backend": training.backend,
        "seed": run.seed,
        "share": f"{index}/{training.devices}",
    }
    return ["run", bundle, "--server", f"127.0.0.1:{port}", "--json", "--out", out, *_flags(values)]


def _flags(values: Mapping[str, object]) -> list[str]:
    given = {f"--{name.replace('_', '-')}": str(value) for name, value in values.items() if value is not None}
    return [part for pair in given.items() for part in pair]
