"""Step "identity": the board makes its key and a request, the server's CA signs it here, the certificate goes back."""

import os
import time
import urllib.parse

from edgekit.deploy.deployment import Deployment, Finding
from edgekit.deploy.ssh import assignments, quote
from edgekit.errors import DeployError
from edgekit.identity import authority
from edgekit.identity.register import Entry, day, fingerprint
from edgekit.runtime.identity.folder import CA, CERTIFICATE, REQUEST

#: Seconds before its end from which on a certificate is replaced.
RENEW_S = 30 * 86400


def identity(d: Deployment) -> Finding:
    """Looks whether the board's certificate still counts, and enrols it where it does not."""
    ca = d.settings.identity
    if d.settings.server is None:
        return Finding("nothing is started, nobody needs a certificate", skipped=True)
    if ca is None:
        why = "--insecure" if d.settings.insecure else "it stays on the board"
        return Finding(f"the line is in the clear: {why}")
    folder = identity_path(d)
    entry = _there(d, folder, ca)
    if entry is not None:
        return Finding(f"{d.device_name} is enrolled until {day(entry.ends)}")

    def do() -> str:
        _request(d, folder)
        (request,) = d.ask("files", do="read", paths=[f"{folder}/{REQUEST}"]).get("texts", list)
        if not isinstance(request, str):
            raise DeployError(f"{d.ssh.host}: {folder}/{REQUEST} is gone although it was just made there")
        told = f"the request of {d.ssh.host}"
        signed = authority.sign(ca, request.encode("utf-8", "surrogateescape"), told, only=d.device_name)
        texts = [[f"{folder}/{CA}", signed.ca.decode()], [f"{folder}/{CERTIFICATE}", signed.certificate.decode()]]
        d.ask("files", do="write", texts=texts)
        return f"{d.device_name} enrolled until {day(signed.entry.ends)}; its key, {folder}/device.key, stays there"

    plan = f"make a key and a request there by openssl, sign it with {os.path.join(ca, 'ca.key')} here"
    return Finding(f"{d.device_name} is not enrolled", plan, do)


def identity_path(d: Deployment) -> str:
    """The device's identity on the board: one for each name, whatever is deployed there."""
    return f"{d.facts.target}/identity/{urllib.parse.quote(d.device_name, safe='')}"


def _there(d: Deployment, folder: str, ca: str) -> Entry | None:
    """The register's entry of the certificate on the board; None where there is none, or one that is to be replaced."""
    texts = d.ask("files", do="read", paths=[f"{folder}/{CERTIFICATE}", f"{folder}/{CA}"]).get("texts", list)
    if not all(isinstance(text, str) for text in texts) or texts[1:] != [authority.ca(ca)]:
        return None
    try:
        found = fingerprint(texts[0].encode("utf-8", "surrogateescape"))
    except ValueError:
        return None  # no certificate: a new one takes its place
    return next((entry for entry in authority.entries(ca) if entry.certificate == found and _counts(entry, d)), None)


def _counts(entry: Entry, d: Deployment) -> bool:
    return entry.name == d.device_name and entry.counts(time.time() + RENEW_S)


def _request(d: Deployment, folder: str) -> None:
    given = d.variables
    path = ":".join(part for part in (d.part_path, given.pop("PYTHONPATH", "")) if part)
    words = [d.facts.executable, "-m", "edgekit.runtime.enroll", "--name", d.device_name, "-o", folder]
    done = d.ssh.run(assignments({"PYTHONPATH": path, **given}) + " ".join(map(quote, words)) + " </dev/null")
    if done.code:
        raise DeployError(f"{d.ssh.host}: no certificate request can be made there: {done.words}")
