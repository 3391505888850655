"""Step "health": waits until the process is connected to the server, or has ended."""

import time

from edgekit.deploy.deployment import Deployment, Finding
from edgekit.deploy.process import ended, last_words, restarting, said
from edgekit.errors import DeployError

EVERY_S = 0.5


def health(d: Deployment) -> Finding:
    """Waits for the first event of the process."""
    if d.settings.server is None:
        return Finding("nothing was started", skipped=True)
    state = d.ask("process", do="state", base=d.base)
    if state.maybe("pid", int) is not None and said(state):
        return Finding(f"connected, {said(state)}")
    if state.maybe("pid", int) is None and state.maybe("exit", int) == 0 and said(state):
        return Finding(f"finished, {said(state)}")
    return Finding("not connected yet", f"wait until it is connected to {d.settings.server}", lambda: wait(d))


def wait(d: Deployment) -> str:
    """The first event of the process, in words; DeployError with its log's end when it has ended or stays silent."""
    until, shown = time.monotonic() + d.settings.timeout_s, ""
    while True:
        state = d.ask("process", do="state", base=d.base)
        if said(state) and (state.maybe("pid", int) is not None or state.maybe("exit", int) == 0):
            return f"connected, {said(state)}"
        if state.maybe("pid", int) is None:
            raise DeployError(f"{d.ssh.host}: the device process ended: {ended(state)}\nit said: {last_words(state)}")
        if restarting(state) not in ("", shown):
            shown = restarting(state)
            d.show({"event": "says", "step": "health", "text": f"{shown}; it said: {last_words(state)}"})
        if time.monotonic() > until:
            raise DeployError(
                f"{d.ssh.host}: the device process has not connected to {d.settings.server} within "
                f"{d.settings.timeout_s:g} s, and goes on trying; `edgekit deploy --host {d.settings.host} --name "
                f"{d.name} --logs` shows what it says, --stop ends it\nit said: {last_words(state)}"
            )
        time.sleep(EVERY_S)
