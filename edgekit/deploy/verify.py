"""Step "check": runs the device process on the board once: it builds its engine, repeats the golden codes, is timed."""

from typing import Any

from edgekit.deploy.deployment import Deployment, Finding
from edgekit.deploy.process import events
from edgekit.deploy.ssh import assignments, quote
from edgekit.errors import DeployError
from edgekit.runtime.__main__ import GOLDEN

#: Options of the device process that also matter when it only encodes.
HANDED_ON = ("batch", "threads", "provider")


def check(d: Deployment) -> Finding:
    """Checks the bundle, unless it has passed before with this device part, Python, libraries and backend."""
    key = {
        "bundle": d.bundle.digest,
        "part": d.part,
        "python": d.python,
        "versions": getattr(d, "versions", {}),
        "backend": d.options.backend,
        "provider": d.options.provider,
        "environment": list(d.settings.environment),
    }
    if d.record.get("checked") == key and not d.settings.recheck:
        return Finding(f"passed before with this bundle and these versions: {figures(d.record.get('figures'))}")

    def do() -> str:
        encoded = measure(d)
        d.keep(
            checked=dict(key, versions=d.versions), figures=encoded, bundle=d.bundle.digest, model=d.bundle.model,
            cut=d.bundle.cut, device=d.profile.name,
        )  # fmt: skip
        return f"{d.options.backend} repeats the golden codes; {figures(encoded)}"

    text = "asked to check again" if d.record.get("checked") == key else "not checked yet with these versions"
    plan = f"open it with {d.options.backend}, compare golden codes, encode for {d.settings.seconds:g} s"
    return Finding(text, plan, do)


def measure(d: Deployment) -> dict[str, Any]:
    """The "encoded" event of the device process on the board; DeployError with its last words."""
    given = {name: getattr(d.options, name) for name in HANDED_ON}
    flags = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    flags += ["--dataset", GOLDEN, "--backend", d.options.backend]
    words = ["--measure", f"{d.settings.seconds:g}", "--json", *flags]
    done = d.ssh.run(
        f"{process(d, words)} </dev/null",
        on_error_line=lambda line: d.show({"event": "says", "step": "check", "text": line}),
    )
    if done.code:
        raise DeployError(f"{d.ssh.host}: the check failed there (exit code {done.code}): {done.words}")
    for event in events(done.out.decode("utf-8", "replace").splitlines()):
        if event["event"] == "encoded":
            return event
    raise DeployError(f"{d.ssh.host}: the check ended without figures: {done.words}")


def process(d: Deployment, words: list[str]) -> str:
    """The shell command of a device process with arguments `words`."""
    given = d.variables
    path = ":".join(part for part in (d.part_path, given.pop("PYTHONPATH", "")) if part)
    values = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **given}
    command = [d.python, "-m", "edgekit.runtime", d.bundle_path, *words]
    return assignments(values) + " ".join(map(quote, command))


def figures(encoded: Any) -> str:
    """Speed and latency of an "encoded" event, in words."""
    try:
        latency = encoded["latency_s"]
        return (
            f"{encoded['images_per_s']:.0f} images/s encoded, a batch takes {1e3 * latency['p50']:.1f} ms "
            f"(95 of 100 below {1e3 * latency['p95']:.1f} ms), {encoded['payload_bytes_per_image']:.0f} B an image"
        )
    except (KeyError, TypeError, ValueError):
        return f"figures {encoded!r:.100}"
