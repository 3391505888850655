"""``python -m edgekit.runtime.doctor [BUNDLE]``: is this machine fit to run a bundle, and what is missing?

It imports only the standard library until numpy is known to load. ``edgekit doctor`` is the same command.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import edgekit
from edgekit import machine
from edgekit.errors import BackendError, BundleError
from edgekit.line.address import check_address
from edgekit.providers import AUTO, CPU, PROVIDERS, check_provider
from edgekit.runtime.backends.registry import BY_RUNTIME, entry_of
from edgekit.runtime.health import libraries
from edgekit.runtime.health.finding import STATES, Finding
from edgekit.runtime.identity.folder import Identity, open_identity
from edgekit.runtime.program import exit_code

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

EXAMPLES = """examples:
  python3 -m edgekit.runtime.doctor                                   this machine, for ONNX Runtime
  python3 -m edgekit.runtime.doctor bundle                            for the board that the bundle was exported for
  python3 -m edgekit.runtime.doctor bundle --server 10.0.0.2:50051    and the line to its server
  python3 -m edgekit.runtime.doctor bundle --json                     for a program

Exit code 8 when something failed."""

MARKS = {"ok": "ok", "warning": "!", "failed": "FAILED", "unknown": "?"}
OLDEST_PYTHON = "3.6"


def parser(program: str) -> argparse.ArgumentParser:
    """The parser of the command's options."""
    p = argparse.ArgumentParser(
        prog=program,
        description="Say whether this machine is fit to run BUNDLE, or edgekit at all, and what is missing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("bundle", metavar="BUNDLE", nargs="?", help="folder written by `edgekit export`")
    p.add_argument("--server", metavar="HOST:PORT", help="also ask the server there: reachable, time, bundle")
    p.add_argument("--identity", metavar="DIR", help="ask it by mutual TLS, as the device that DIR says")
    p.add_argument("--backend", help="inference engine (default: the one of the bundle's board, else onnxruntime)")
    p.add_argument("--provider", default=AUTO, metavar="NAME", help="what ONNX Runtime is to run the graphs that learn "
                   "on (default auto: what the bundle was exported for, or the board's)")  # fmt: skip
    p.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return p


def main(arguments: Optional[List[str]] = None, program: str = "python -m edgekit.runtime.doctor") -> int:
    """The exit code (see `edgekit.errors`) of a check of this machine."""
    options = parser(program).parse_args(arguments)
    return exit_code(
        lambda: run(
            options.bundle, None, options.server, options.backend, options.json, options.provider, options.identity
        )
    )


def run(
    path: Optional[str],
    profile: Optional[Dict[str, Any]],
    server: Optional[str],
    backend: Optional[str],
    as_json: bool,
    provider: str = AUTO,
    identity: Optional[str] = None,
) -> None:
    """Prints the findings for the bundle at `path` and for `profile`, or without one for the bundle's own.

    `identity` is the folder of this device's, where the server wants one. BackendError with the names of the checks
    that failed, after everything is printed.
    """
    who = None if identity is None else open_identity(identity)
    bundle, damaged = None, []
    if path is not None and libraries.library("numpy", {}).state != "failed":
        from edgekit.bundle import open_bundle

        try:
            bundle = open_bundle(path)
        except BundleError as error:
            damaged.append(Finding("bundle", "failed", str(error), path, "transfer it again"))
    if profile is None and bundle is not None:
        profile = bundle.device
    backend = backend or BY_RUNTIME.get(str((profile or {}).get("runtime")), "onnxruntime")
    findings = damaged + examine(bundle, profile, server, backend, provider=provider, identity=who)
    text = _json(findings, bundle, profile, server, backend) if as_json else _text(findings, profile, backend)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    failed = [finding.name for finding in findings if finding.state == "failed"]
    if failed:
        raise BackendError("{} failed; what to do stands above".format(", ".join(failed)))


def examine(
    bundle: "Optional[Bundle]",
    profile: Optional[Dict[str, Any]],
    server: Optional[str],
    backend: str,
    root: str = os.sep,
    provider: str = AUTO,
    identity: Optional[Identity] = None,
) -> List[Finding]:
    """The findings about everything on this machine that `backend` needs, in the order in which it is needed.

    `profile` is a device profile as JSON, `server` HOST:PORT; files of the system are looked for below `root`.
    UsageError when `server` is no address, UnknownName when there is no such backend or provider.
    """
    check_provider(provider)
    profile = profile or {}
    if server is not None:
        check_address(server)
    oldest = profile.get("python")
    found = [
        libraries.python(oldest if isinstance(oldest, str) else OLDEST_PYTHON),
        libraries.library("numpy", {}),
    ]
    if found[-1].state == "failed":
        rest = "nothing else was looked at: edgekit needs numpy for it"
        return [*found, Finding("edgekit", "unknown", rest, edgekit.__version__)]
    from edgekit.runtime.health.board import board
    from edgekit.runtime.health.coder import coder
    from edgekit.runtime.health.engine import engine
    from edgekit.runtime.health.room import disk, memory
    from edgekit.runtime.health.server import server as answers

    needed = entry_of(backend).libraries
    versions = _versions(profile)
    found += [libraries.library(name, versions) for name in ("grpc", *needed)]
    found += [coder(), *engine(backend, versions, root)]
    if "onnxruntime" in needed and all(each.state != "failed" for each in found if each.name == "onnxruntime"):
        wanted = bundle.provider if bundle is not None else profile.get("provider", CPU)
        told = libraries.provider(provider, wanted if wanted in PROVIDERS else CPU, bundle is not None)
        if bundle is not None and told.state == "ok" and provider == AUTO and bundle.wanted_provider != wanted:
            text = "learning runs on {}, not on {} as planned".format(wanted, bundle.wanted_provider)
            told = Finding("provider", "warning", text, wanted, bundle.provider_reason)
        found.append(told)
    if bundle is not None:
        text = "{} cut at {} for {}, {}".format(bundle.model, bundle.cut, bundle.device["name"], bundle.digest[:12])
        found.append(Finding("bundle", "ok", text + ": every hash is right", bundle.digest))
    found += memory(bundle, backend, root) + disk(bundle, backend) + board(versions, root)
    if server is not None:
        lacking = [each for each in found if each.name == "grpc" and each.state == "failed"]
        if lacking:
            found.append(Finding("server", "unknown", "not asked: grpc {}".format(lacking[0].text)))
        else:
            found += answers(server, bundle.digest if bundle is not None else None, identity)
    return found


def _versions(profile: Dict[str, Any]) -> Dict[str, str]:
    """The versions of a profile. A bundle's manifest is not checked for them: what is no text is left out."""
    versions = profile.get("versions")
    if not isinstance(versions, dict):
        return {}
    return {str(name): text for name, text in versions.items() if isinstance(text, str)}


def _text(findings: List[Finding], profile: Optional[Dict[str, Any]], backend: str) -> str:
    """A line for each finding, with advice below those that are not ok, and a line for the result."""
    wide = max(len(finding.name) for finding in findings)
    left = " " * (8 + wide + 2)
    width = max(60, min(shutil.get_terminal_size((120, 24)).columns, 120))
    lines: List[str] = []
    for finding in findings:
        head = "{:8}{:{}}  ".format(MARKS[finding.state], finding.name, wide)
        lines += textwrap.wrap(finding.text, width, initial_indent=head, subsequent_indent=left, break_long_words=False)
        if finding.advice and finding.state != "ok":
            indent = left + "-> "
            lines += textwrap.wrap(
                finding.advice, width, initial_indent=indent, subsequent_indent=left + "   ", break_long_words=False
            )
    counts = ", ".join("{} {}".format(number, state) for state, number in _counts(findings).items() if number)
    fit = "not fit" if any(finding.state == "failed" for finding in findings) else "fit"
    board = " as {}".format(profile["name"]) if profile and "name" in profile else ""
    return "\n".join([*lines, "{}: {} to run {}{}".format(counts, fit, backend, board)])


def _json(
    findings: List[Finding],
    bundle: "Optional[Bundle]",
    profile: Optional[Dict[str, Any]],
    server: Optional[str],
    backend: str,
) -> str:
    told = {
        "format": "edgekit-doctor",
        "version": 1,
        "edgekit": edgekit.__version__,
        "host": platform.node(),
        "device": (profile or {}).get("name"),
        "backend": backend,
        "bundle": bundle.digest if bundle is not None else None,
        "server": server,
        "machine": machine.describe(),
        "summary": _counts(findings),
        "findings": [dict(finding._asdict()) for finding in findings],
    }
    return json.dumps(told, indent=1)


def _counts(findings: List[Finding]) -> Dict[str, int]:
    return {state: sum(finding.state == state for finding in findings) for state in STATES}


if __name__ == "__main__":
    sys.exit(main())
