"""Step "local": opens the bundle and checks what was asked for, all on this machine; lists the files to be sent."""

import argparse
import contextlib
import io
import os
import re
from collections.abc import Collection

from edgekit.bundle import MANIFEST, Bundle, open_bundle
from edgekit.deploy.deployment import Deployment, Finding, file_at, one_word, size
from edgekit.deploy.on_board.files import digest
from edgekit.deploy.package import write_zip
from edgekit.device_profiles.profile import Profile
from edgekit.device_profiles.registry import from_json, profile
from edgekit.errors import BundleError, DeployError, UsageError
from edgekit.identity import authority
from edgekit.line.address import check_address
from edgekit.line.clear import check_clear
from edgekit.line.names import check_name
from edgekit.providers import check_provider
from edgekit.runtime.__main__ import parser
from edgekit.runtime.backends.registry import BY_RUNTIME, entry_of
from edgekit.runtime.session import check_augment


def local(d: Deployment) -> Finding:
    """Opens the bundle, and refuses what cannot work before the board is asked anything."""
    bundle = d.bundle = open_bundle(d.settings.bundle)
    exported_for = str(bundle.device["name"])
    # A profile of the user's own has no name here, but the bundle has it.
    d.profile = profile(d.settings.device) if d.settings.device else _described(bundle)
    if d.profile.name != exported_for:
        raise DeployError(
            f"{d.settings.bundle} was exported for {exported_for}, --device {d.settings.device} is {d.profile.name}: "
            f"`edgekit export {bundle.model} --cut {bundle.cut} --device {d.settings.device} -o DIR` exports for it"
        )
    d.options = arguments(d.settings.arguments, BY_RUNTIME[d.profile.runtime])
    check_augment(d.options.augment, bundle.codec, bundle.input_shape)
    if d.settings.server is not None:
        check_address(d.settings.server)
        with_tls = d.settings.identity is not None
        check_clear("--server", d.settings.server, with_tls, d.settings.insecure)
        if d.settings.identity is not None:
            authority.entries(d.settings.identity)
    variables(d.settings.environment)
    d.name = one_word(d.settings.name or f"{d.profile.name}-{bundle.digest[:8]}", "--name")
    zipped = write_zip(d.scratch)
    d.part = digest(zipped)
    stem, ending = os.path.splitext(os.path.basename(zipped))
    names = [*sorted(bundle.manifest["files"]), MANIFEST]  # last: a folder that has it is complete
    folder = f"bundles/{bundle.digest[:16]}"
    d.files = [
        file_at(zipped, f"device/{stem}-{d.part[:12]}{ending}"),
        *(file_at(os.path.join(bundle.path, name), f"{folder}/{name}") for name in names),
    ]
    # Else the board is asked first.
    named = "" if d.settings.server is None or d.behind_loopback else f", device {d.device_name}"
    whole = size(sum(file.n_bytes for file in d.files[1:]))
    return Finding(
        f"bundle {bundle.digest[:16]}: {bundle.model} cut at {bundle.cut} for {d.profile.title}, {len(names)} files, "
        f"{whole}, every hash right; device part {size(d.files[0].n_bytes)}; deployment {d.name}{named}"
    )


def variables(pairs: Collection[str]) -> dict[str, str]:
    """Name -> value of --env; UsageError unless each is NAME=VALUE."""
    for pair in pairs:
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", pair):
            raise UsageError(f"--env {pair!r}: expected NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _described(bundle: Bundle) -> Profile:
    try:
        return from_json(bundle.device)
    except ValueError as error:
        raise BundleError(f"{bundle.path}: the manifest describes no board: {error}; export it again") from None


def arguments(words: tuple[str, ...], backend: str) -> argparse.Namespace:
    """The options of the device process in `words`; UsageError for mistakes, and for what deploy sets itself."""
    p = parser("edgekit run")
    p.set_defaults(backend=backend)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = p.parse_args(["BUNDLE", *words])
    except SystemExit as end:
        if not end.code:
            raise
        problem = said.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UsageError(f"the arguments after --: {problem}; `edgekit run --help` lists them") from None
    for name in ("server", "measure", "identity", "insecure"):
        if getattr(options, name) not in (None, False):
            raise UsageError(f"--{name} after --: it is deploy's, give it before the --")
    if options.overwrite:
        raise UsageError("--overwrite after --: it is deploy's, give it before the --")
    if options.name is not None:
        check_name(options.name)
    entry_of(options.backend)
    check_provider(options.provider)
    return options


def rules(d: Deployment) -> Finding:
    """Step "rules": the golden data of the bundle and the rules of its board, checked on this machine."""
    check, bundle = d.settings.check, d.bundle.digest
    if check is None:
        return Finding("golden data and rules of the board were not checked here (--no-check)", skipped=True)
    if d.record.get("rules") == bundle and not d.settings.recheck:
        return Finding("golden data and rules of the board were checked for this bundle")

    def do() -> str:
        text = check(d.bundle)
        if d.record:
            d.keep(rules=bundle)
        d.record["rules"] = bundle  # the first record is written together with the first change on the board
        return text

    return Finding("not checked yet for this bundle", "rerun its golden data and the rules of the board here", do)
