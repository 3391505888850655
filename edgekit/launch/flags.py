"""The command lines of the processes that `train` starts: each setting becomes the flag of its name."""

from collections.abc import Mapping

from edgekit.launch.settings import Run
from edgekit.saves import found


def server(run: Run, bundle: str, out: str, resume: bool = False) -> list[str]:
    """`edgekit serve` of the folder `bundle` at a free port, until all devices are done; the weights go to `out`.

    With `resume` it goes on with the run that `out` holds, if it holds one.
    """
    if resume and found(out):
        return ["serve", "--resume", out, "--listen", "127.0.0.1:0", "--json", *as_flags({"metrics": run.metrics})]
    values = {**run.server.as_options(), "seed": run.seed, "devices": run.training.devices, "metrics": run.metrics}
    return ["serve", bundle, "--listen", "127.0.0.1:0", "--json", "--out", out, *as_flags(values)]


def link(run: Run, line: str, port: int) -> list[str]:
    """`edgekit link`: an emulated `line` to the server at `port`, until all devices have hung up."""
    values = {"to": f"127.0.0.1:{port}", "connections": run.training.devices, "seed": run.seed}
    return ["link", line, "--json", *as_flags(values)]


def device(run: Run, bundle: str, out: str, index: int, port: int, resume: bool = False) -> list[str]:
    """`edgekit run` of the folder `bundle`: device number `index`, connected to `port`; its weights go to `out`.

    With `resume` it goes on from what `out` holds.
    """
    data, training = run.data, run.training._asdict()
    share = f"{index}/{training.pop('devices')}"
    # The line is emulated between the processes: a device knows nothing of it.
    del training["link"]
    values: dict[str, object] = {
        "dataset": data.dataset,
        "data": data.folder,
        "limit": data.limit,
        "provider": run.board.provider,
    }
    values.update(training, reconnect=run.server.fleet.reconnect)
    # Devices in step have one network: each tests a part of it. Else each tests its own on all images.
    test_share = share if run.in_step else None
    flags = as_flags({**values, "seed": run.seed, "share": share, "test_share": test_share})
    goes_on = ["--resume"] * resume
    return ["run", bundle, "--server", f"127.0.0.1:{port}", "--json", "--out", out, *goes_on, *flags]


def as_flags(values: Mapping[str, object]) -> list[str]:
    """Each of `values` as the flag of its name; none for None."""
    given = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            given.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            given += [f"--{flag}", str(value)]
    return given
