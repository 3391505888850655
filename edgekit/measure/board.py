"""Board: runs the device process of a measurement on another machine, over ssh.

::

    this machine:  server process --- emulated link --- ssh, whose tunnel the board's end is ---  device process: board
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator

from edgekit.deploy.deployment import Deployment, Event, Settings, run
from edgekit.deploy.environment import environment
from edgekit.deploy.files import files
from edgekit.deploy.local import local
from edgekit.deploy.ssh import Ssh
from edgekit.deploy.steps import board
from edgekit.deploy.verify import process

#: The steps of a deployment that have to be done before a device process can be started.
STEPS = (("local", local), ("board", board), ("files", files), ("environment", environment))


class Board:
    """A board that has the device part, and every bundle that was given to `prepare`.

    `settings` are those of a deployment, without its bundle; `show` is called with the events of every step.
    """

    def __init__(self, settings: Settings, ssh: Ssh, scratch: str, show: Callable[[Event], None]) -> None:
        self._settings = settings
        self._ssh = ssh
        self._scratch = scratch
        self._show = show
        self._deployments: dict[str, Deployment] = {}

    def prepare(self, bundle: str) -> None:
        """Sends the bundle in the folder `bundle` to the board, with everything that the board lacks to run it."""
        deployment = Deployment(self._settings._replace(bundle=bundle), self._ssh, self._scratch, self._show)
        run(deployment, STEPS, dry_run=False)
        self._deployments[bundle] = deployment

    def backend(self, bundle: str) -> str:
        """The id of the backend that runs `bundle` there."""
        return str(self._deployments[bundle].options.backend)

    def command(self, bundle: str, words: list[str]) -> list[str]:
        """Program and arguments that run a device process of `bundle` on the board, with the arguments `words`."""
        backend = ["--backend", self.backend(bundle)]
        return self._ssh.words(process(self._deployments[bundle], [*words, *backend]))

    def tunnel(self, port: int) -> contextlib.AbstractContextManager[int]:
        """A port on the board's loopback that leads to `port` here."""
        return self._ssh.tunnel(port)


@contextlib.contextmanager
def connected(settings: Settings, show: Callable[[Event], None]) -> Iterator[Board]:
    """The board of `settings`, over one connection that ends with the context."""
    with Ssh(settings.host, settings.ssh) as ssh, tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        yield Board(settings, ssh, scratch, show)
