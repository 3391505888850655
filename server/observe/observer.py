"""Observer: watches a service from when it begins, and serves what is seen of it over HTTP."""

from edgekit.server.events import Event
from edgekit.server.observe.sight import Sight
from edgekit.server.observe.status import looker
from edgekit.server.observe.web import Web
from edgekit.server.service import Service


class Observer:
    """Serves `/metrics`, `/status` and `/health` at `address`, HOST:PORT, until it is closed. TransportError.

    The run has the id `run` and `expected` devices, None: any number; up to `most` at a time. What it sees comes from
    `service` itself, from `event`, which is to hear all of its events, and from `sight.traffic`, through which frames
    are to pass.
    """

    def __init__(self, service: Service, address: str, run: str, expected: int | None, most: int) -> None:
        # Here, as it needs prometheus_client: a server that nobody watches does without.
        from edgekit.server.observe.pages import pages

        self._service = service
        self.sight = Sight(service.setup.codec, most)
        service.steps.on_batch = self.sight.batch
        self._web = Web(address, pages(looker(service, self.sight, run, expected)))
        self.port = self._web.port

    def event(self, event: Event) -> None:
        """Takes note of an event, at the moment that it tells of."""
        self.sight.event(event)
        if event["event"] == "went_back":
            self.sight.went_back({number: each.device for number, each in self._service.fleet.sessions.items()})

    def close(self) -> None:
        """Takes no more requests."""
        self._web.close()
