"""Board: the device's side of a measurement on another machine, over ssh.

::

    this machine:  server process --- emulated link --- ssh, whose tunnel the board's end is ---  device process: board
"""

import contextlib
import tempfile
from collections.abc import Callable

from edgekit.deploy.deployment import Deployment, Event, Settings, run
from edgekit.deploy.environment import environment
from edgekit.deploy.files import files
from edgekit.deploy.local import local
from edgekit.deploy.ssh import Ssh
from edgekit.deploy.steps import board
from edgekit.deploy.verify import process

#: What has to be there before a device process can be started.
STEPS = (("local", local), ("board", board), ("files", files), ("environment", environment))


class Board:
    """A board with the device part, and every bundle that was given to `prepare`. A context manager.

    `settings` are those of a deployment but for its bundle; `show` is told of every step.
    """

    def __init__(self, settings: Settings, show: Callable[[Event], None]) -> None:
        self._settings = settings
        self._show = show
        self._deployments: dict[str, Deployment] = {}

    def __enter__(self) -> "Board":
        with contextlib.ExitStack() as stack:
            self._ssh = stack.enter_context(Ssh(self._settings.host, self._settings.ssh))
            self._scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgekit-"))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def prepare(self, bundle: str) -> None:
        """Brings the bundle in the folder `bundle` there, and what the board lacks to run it."""
        deployment = Deployment(self._settings._replace(bundle=bundle), self._ssh, self._scratch, self._show)
        run(deployment, STEPS, dry_run=False)
        self._deployments[bundle] = deployment

    def backend(self, bundle: str) -> str:
        """The inference engine that runs `bundle` there."""
        return str(self._deployments[bundle].options.backend)

    def command(self, bundle: str, words: list[str]) -> list[str]:
        """The program and arguments that run, there, a device process of `bundle` with the arguments `words`."""
        backend = ["--backend", self.backend(bundle)]
        return self._ssh.words(process(self._deployments[bundle], [*words, *backend]))

    def tunnel(self, port: int) -> contextlib.AbstractContextManager[int]:
        """A port of the board's own loopback that leads to `port` here."""
        return self._ssh.tunnel(port)
