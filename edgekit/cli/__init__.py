"""The command line `edgekit`: its commands are imported only when they are called, so that ``--help`` is quick."""

import atexit
import gc
import importlib
import sys

import click

import edgekit
from edgekit.errors import EdgekitError, UnknownName
from edgekit.signals import stop_by_signals

#: command -> (module:function, help in one line)
COMMANDS = {
    "train": ("edgekit.cli.train:train", "Export, serve and train with several devices, all on this machine."),
    "federate": (
        "edgekit.cli.federate:federate",
        "Train a whole network by federated learning over Flower, on this machine.",
    ),
    "export": ("edgekit.cli.export:export", "Cut a model at a layer and write a bundle for server and devices."),
    "serve": ("edgekit.cli.serve:serve", "Train the back half of a bundle for devices that connect."),
    "status": ("edgekit.cli.status:status", "Show how the run of a server is, and what its devices do."),
    "run": ("edgekit.cli.run:run", "Run and train the front half of a bundle on this device."),
    "enroll": ("edgekit.cli.enroll:enroll", "Make the server's CA, and certificates for it and its devices."),
    "deploy": ("edgekit.cli.deploy:deploy", "Take a bundle to a board over SSH: check, copy, set up, probe, start."),
    "doctor": ("edgekit.cli.doctor:doctor", "Say whether this machine is fit to run a bundle, and what is missing."),
    "package-device": (
        "edgekit.cli.package_device:package_device",
        "Write the part of edgekit that a board runs: a wheel, and one zip file.",
    ),
    "link": ("edgekit.cli.link:link", "Forward connections as a line would, at its rate and with its delay."),
    "inspect": ("edgekit.cli.inspect:inspect", "Verify a bundle and show what is in it."),
    "check": ("edgekit.cli.check:check", "Rerun a bundle's golden data and its board's rules."),
    "models": (
        "edgekit.cli.models:models",
        "List the built-in models, or the layers of one that a single tensor passes.",
    ),
    "cuts": ("edgekit.cli.cuts:cuts", "List every cut of a model: shape, work on both sides, bytes."),
    "devices": ("edgekit.cli.devices:devices", "List the boards, or all that is known of one."),
    "measure": (
        "edgekit.cli.measure:measure",
        "Measure images/s, bytes and time of several codecs over emulated links.",
    ),
    "plan": ("edgekit.cli.plan:plan", "Rank the cuts of a model for a board and a link by predicted images/s."),
    "report": ("edgekit.cli.report:report", "Show records of measuring and training as one page of tables and charts."),
}


class Commands(click.Group):
    """Finds a command in `COMMANDS`; suggests similar names for an unknown one."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name][0].split(":")
        command = getattr(importlib.import_module(module), function)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(
                str(UnknownName("command", args[0], COMMANDS, "`edgekit --help` lists them")), context
            )
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(edgekit.__version__, prog_name="edgekit")
def group() -> None:
    """Keep a vision model learning on many weak devices over a thin link.

    A network is cut at one layer. Devices run the front half as ONNX, with the feature quantised to a few hundred
    bytes inside the graph; a server trains the back half and returns a compressed gradient.

    \b
    Start here:   edgekit train mobilenet_v1 --dataset digits --devices 2
    """


def main() -> None:
    """Runs a command; an error becomes a line on standard error and the exit code of its class."""
    # KeyboardInterrupt, as of Ctrl-C, so that child processes are ended.
    stop_by_signals()
    # Python looks for garbage once more when a process ends. Among all that torch has made that takes half a second.
    atexit.register(gc.freeze)
    try:
        # Without standalone mode, the code of `context.exit(code)` is the value that is returned.
        code = group(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except EdgekitError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MemoryError as error:
        click.echo(f"error: not enough memory for what was asked: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("edgekit"):
            raise
        click.echo(
            f"error: this command needs {error.name}, which is not installed: pip install 'edgekit[all]'", err=True
        )
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
