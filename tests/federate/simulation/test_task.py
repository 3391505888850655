"""What Flower's processes make of the files of a run."""

from pathlib import Path

import numpy as np

from edgekit import tensorfile
from edgekit.data import images
from edgekit.data.registry import load
from edgekit.federate.run import Plan
from edgekit.federate.scaling import Place
from edgekit.federate.settings import Local
from edgekit.federate.simulation.settings import Told
from edgekit.federate.simulation.task import ARRAYS, Task, task

LOCAL = Local(epochs=1, batch=8, validation=0.0)
PLAN = Plan(clients=3, rounds=2, local=LOCAL, update_codec="quantised:step=1")


def written(folder: Path) -> str:
    """The file of a run on 48 digits."""
    data = images.fit(load("digits", None, 48), (1, 16, 16))
    told = Told(
        "vgg11_thin", (1, 16, 16), None, data.classes, data.mean, data.std, str(folder / "images"), "none", "fedavg",
        PLAN,
    )  # fmt: skip
    tensorfile.write(told.images, {name: getattr(data, name) for name in ARRAYS})
    (folder / "task.json").write_text(told.to_json(), encoding="utf-8")
    return str(folder / "task.json")


def test_every_process_makes_the_same_clients(tmp_path: Path) -> None:
    path = written(tmp_path)
    first, second = Task(path), Task(path)
    start = first.network.weights
    payloads = [each.client(1).fit(start, Place(0, 2)).payload for each in (first, second)]
    assert payloads[0] == payloads[1]
    assert first.client(0).fit(start, Place(0, 2)).payload != payloads[0]
    assert [first.client(number).images for number in range(3)] == [16, 16, 16]
    assert len(first.tested) == 359
    assert task(path) is task(path)


def test_a_client_goes_on_from_what_it_left_out(tmp_path: Path) -> None:
    run = Task(written(tmp_path))
    start, client = run.network.weights, run.client(0)
    client.fit(start, Place(0, 2))
    other = run.client(0)
    other.restore(client.state)
    again = [each.fit(start, Place(1, 2)).payload for each in (client, other, run.client(0))]
    assert again[0] == again[1] != again[2]
    assert all(np.isfinite(array).all() for array in run.network.weights.values())
