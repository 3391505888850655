"""All of it together: a listening server, a device, and what is served of them."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from edgekit.line.frame import Message, encode
from edgekit.server.listen import Listener, serve
from edgekit.server.observe.observer import Observer
from edgekit.server.service import Service
from tests.server.lines import HELLO, Line, feature


@pytest.fixture
def observer(service: Service) -> Iterator[Observer]:
    made = Observer(service, "127.0.0.1:0", "abcd", None, 2)
    service.on_event = made.event
    yield made
    made.close()


@pytest.fixture
def listener(service: Service, observer: Observer) -> Iterator[Listener]:
    made = serve(service, "127.0.0.1:0", 2, traffic=observer.sight.traffic)
    yield made
    made.stop(0)


def get(observer: Observer, path: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", observer.port, timeout=300)
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.getheader("Content-Type") or "", content


def status(observer: Observer) -> dict[str, Any]:
    code, kind, content = get(observer, "/status")
    assert (code, kind) == (200, "application/json")
    found: dict[str, Any] = json.loads(content)
    return found


def test_what_crosses_the_line_is_served(observer: Observer, listener: Listener) -> None:
    device = Line(listener.port)
    session = device.ask(HELLO).session
    sent = [HELLO, feature(session, 0), feature(session, 5)]
    assert device.ask(sent[1]).kind == "gradient"
    assert device.ask(sent[2]).kind == "error"
    found = status(observer)
    assert (found["run"], found["batches"], found["errors"]) == ("abcd", 1, {"10": 1})
    frames = {(each["direction"], each["kind"]): each["frames"] for each in found["messages"]}
    assert frames == {
        ("up", "hello"): 1, ("up", "feature"): 2, ("down", "welcome"): 1, ("down", "gradient"): 1, ("down", "error"): 1
    }  # fmt: skip
    (seen,) = found["devices"]
    assert (seen["name"], seen["images"], seen["codebook"]) == ("board", 2, None)
    assert seen["bytes_up"] == sum(len(encode(message)) for message in sent)
    device.ask(Message("bye", session))
    assert device.ended()
    (seen,) = status(observer)["devices"]
    assert seen["state"] == "finished" and seen["bytes_up"] > sum(len(encode(message)) for message in sent)
    code, kind, text = get(observer, "/metrics")
    assert code == 200 and kind.startswith("text/plain; version=0.0.4")
    assert b'edgekit_device_images_total{device="board"} 2.0\n' in text
    device.close()


def test_health_says_that_the_server_is_about_to_end(observer: Observer) -> None:
    assert get(observer, "/health")[::2] == (200, b'{"health": "serving"}\n')
    observer.sight.stopping = True
    assert get(observer, "/health")[::2] == (503, b'{"health": "stopping"}\n')
