"""edgekit deploy"""

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import options

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.deploy.manage import Place

#: Lines from the end of a log that --logs shows.
LINES = 200


@click.command(context_settings={"max_content_width": 120})
@click.argument("bundle", metavar="[BUNDLE]", required=False)
@click.argument("arguments", metavar="[-- ARGUMENTS OF edgekit run]", nargs=-1, type=click.UNPROCESSED)
@click.option("--host", required=True, metavar="[USER@]BOARD", help="As ssh takes it; your ssh configuration counts. "
              "BOARD, or of localhost its own host name, is the name that the device joins with, unless there is "
              "`-- --name NAME`.")  # fmt: skip
@click.option("--device", help="Board that it is; `edgekit devices` lists them (default: the bundle's).")
@click.option("--server", metavar="HOST:PORT", help="Address of `edgekit serve` as the board sees it; starts it.")
@click.option("--identity", metavar="DIR", help="Enrol the board with the server's CA in DIR (`edgekit enroll init`).")
@click.option("--insecure", is_flag=True, help="Let the board talk to another machine in the clear.")
@click.option("--name", help="Name of the deployment (default: the board and the bundle's hash).")
@options.reached_by_ssh
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=2.0,
              help="How long the check there encodes.")  # fmt: skip
@click.option("--service", type=click.Choice(["auto", "systemd", "process"]), default="auto",
              help="What the device process is started by.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, metavar="S",
              help="Seconds for the process to connect.")  # fmt: skip
@click.option("--no-check", is_flag=True, help="Leave out what `edgekit check` does, on this machine.")
@click.option("--recheck", is_flag=True, help="Check here and there although it passed before.")
@click.option("--overwrite", is_flag=True,
              help="Start a finished run anew; what its --out holds there is lost.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Look at everything, change nothing, say what would be done.")
@click.option("--status", "show_status", is_flag=True, help="Say what runs there, since when, how far, how well.")
@click.option("--logs", is_flag=True, help="Show what the device process says.")
@click.option("--follow", is_flag=True, help="With --logs: go on until it ends.")
@click.option("--stop", is_flag=True, help="End the device process, and say how it ended.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
def deploy(**given: Any) -> None:
    """Take BUNDLE to a board over ssh, and start its device process there.

    Each step looks at what is there and does only what is missing: local, board, rules, files, environment, check,
    identity, service, health. So a second call does nothing, and a call after an interruption goes on where
    that stopped. Of numpy, ONNX Runtime and grpcio, what the board's Python lacks is installed into an environment of
    its own, and nothing else. Exit code 13 when the board cannot be reached or is not fit. Details: docs/deploy.md.

    \b
    edgekit deploy bundle --host me@nano --server 10.0.0.2:50051 --identity ca -- --epochs 20 --data /data
    edgekit deploy bundle --host me@nano                   without --server: files and check, nothing is started
    edgekit deploy bundle --host me@nano --ssh 'ssh -p 2222 -i KEY' --dry-run
    edgekit deploy --host me@nano --status
    edgekit deploy --host me@nano --name jetson-nano-4f1c22ab --logs --follow
    edgekit deploy --host me@nano --stop
    """
    asked = [name for name in ("show_status", "logs", "stop") if given[name]]
    if len(asked) > 1 or (asked and given["dry_run"]) or (given["follow"] and not given["logs"]):
        raise click.UsageError("expected one of --dry-run, --status, --logs [--follow] and --stop")
    if asked:
        _manage(asked[0], given)
        return
    if given["bundle"] is None:
        raise click.UsageError("BUNDLE is missing: the folder that `edgekit export` wrote")
    from edgekit.deploy.deployment import Settings
    from edgekit.deploy.steps import deploy as run

    same = {name: given[name] for name in Settings._fields if name in given}
    show = options.print_json if given["as_json"] else _show
    settings = Settings(**same, timeout_s=given["timeout"], check=None if given["no_check"] else _check)
    try:
        run(settings, show, given["dry_run"])
    except KeyboardInterrupt:
        click.echo("what was sent stays on the board: the same command goes on from there", err=True)
        raise


def _check(bundle: "Bundle") -> str:
    from edgekit.export.parity.check import check_bundle

    report = check_bundle(bundle, reference=False)
    report.require()
    return f"{len(report.checks)} checks of golden data and rules passed here"


def _manage(what: str, given: dict[str, Any]) -> None:
    from edgekit.bundle import open_bundle
    from edgekit.deploy import manage
    from edgekit.deploy.local import variables
    from edgekit.deploy.ssh import Ssh

    name = given["name"]
    if name is None and given["bundle"] is not None:
        bundle = open_bundle(given["bundle"])
        name = f"{bundle.device['name']}-{bundle.digest[:8]}"
    with Ssh(given["host"], given["ssh"]) as ssh:
        at = manage.Place(ssh, given["python"], given["target"], variables(given["environment"]))
        if what == "show_status":
            _status(at, name, given["as_json"])
            return
        name = manage.the_name(at, name)
        if what == "stop":
            said = manage.stop(at, name)
            if given["as_json"]:
                options.print_json({"event": "stopped", "name": name, "text": said})
            else:
                click.echo(said)
        else:
            manage.logs(at, name, LINES, given["follow"])


def _status(at: "Place", name: str | None, as_json: bool) -> None:
    from edgekit.deploy import manage

    names = manage.names(at) if name is None else [manage.the_name(at, name)]
    if not names:
        manage.the_name(at, None)  # says that there is none
    for each in names:
        status = manage.status(at, each)
        if as_json:
            options.print_json(status)
            continue
        click.echo(f"{each}: {status['state']}")
        if status["server"]:
            click.echo(f"  {status['progress']}; server {status['server']}, by {status['service']}")
        if status["bundle"]:
            network = f"{status['model']} cut at {status['cut']} for {status['device']}"
            click.echo(f"  bundle {str(status['bundle'])[:16]}: {network}")
        if status["deployed"]:
            click.echo(f"  deployed {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status['deployed']))}")
        if status["last_words"]:
            click.echo(f"  it said: {status['last_words']}")


def _show(event: dict[str, Any]) -> None:
    """Shows an event as a line; on a terminal a transfer has one that changes."""
    kind = event["event"]
    if kind == "progress":
        if sys.stderr.isatty():
            share = event["bytes"] / max(event["of"], 1)
            end = "\r" if event["bytes"] < event["of"] else "\n"
            text = f"{'':13}{share:4.0%} of {event['of'] / 1e6:.1f} MB, {event['file'].rpartition('/')[2]:40.40}"
            click.echo(text + end, nl=False, err=True)
    elif kind == "step":
        state = "" if event["state"] == "done" else f" [{event['state']}]"
        click.echo(f"{event['step']:<12} {event['text']}{state}  {event['seconds']:.1f} s")
    elif kind == "plan":
        click.echo(f"{event['step']:<12} ... {event['text'].splitlines()[0]}", err=True)
    elif kind == "warning":
        click.echo(f"warning: {event['text']}", err=True)
    elif kind == "says":
        click.echo(f"{'':13}{event['text']}", err=True)
