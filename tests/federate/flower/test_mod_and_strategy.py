"""Mod and strategy together, in one process: the clients are called one after another, without a network.

They need Flower, so pytest runs them in its environment (tests/e2e/test_flower.py).
"""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower has an environment of its own: tests/e2e/test_flower.py runs these there")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx
from flwr.supercore.task_identity import TaskIdentity

from edgekit.codecs.registry import UPDATES
from edgekit.errors import PayloadError, UsageError
from edgekit.federate.flower import records
from edgekit.federate.flower.mod import compress_mod
from edgekit.federate.flower.strategy import Compressed
from edgekit.federate.wire import FORMAT

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
WHOLE = 4 * (64 * 32 + 8)


def weights():
    draws = np.random.default_rng(0)
    return {
        "w": draws.normal(size=(64, 32)).astype(np.float32),
        "b": np.zeros(8, np.float32),
        "norm.num_batches_tracked": np.array(0, np.int64),
    }


def learn(message, context):
    """A client whose update is drawn by its number and the round."""
    draws = np.random.default_rng((context.node_config["partition-id"], message.content["config"]["server-round"]))
    new = {}
    for name, array in message.content["arrays"].items():
        old = array.numpy()
        step = 5 if name.endswith("tracked") else draws.normal(size=old.shape).astype(np.float32)
        new[name] = old + step
    assert "edgekit" not in message.content, "clients see Flower's own records alone"
    content = {"arrays": records.record_of(new), "metrics": MetricRecord({"num-examples": 10})}
    return Message(RecordDict(content), reply_to=message)


def look(message, context):
    total = sum(float(np.abs(array.numpy()).sum()) for array in message.content["arrays"].values())
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "total": total})}), reply_to=message)


def client(*mods, train=learn):
    made = ClientApp(mods=list(mods))
    made.train()(train)
    made.evaluate()(look)
    return made


class Line:
    """Flower's grid, as far as strategies use it, to clients in this process; `spoil` may change replies."""

    def __init__(self, app, clients=3, backwards=False, spoil=lambda number, reply: reply):
        self.app, self.backwards, self.spoil = app, backwards, spoil
        self.contexts = {
            1000 - i: Context(1, 1000 - i, {"partition-id": i, "num-partitions": clients}, RecordDict(), {})
            for i in range(clients)
        }

    def get_node_ids(self):
        return list(self.contexts)

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in sorted(messages, key=lambda each: each.metadata.dst_node_id, reverse=self.backwards):
            node = message.metadata.dst_node_id
            reply = self.app(message, self.contexts[node])
            if message.metadata.message_type == "train":
                reply = self.spoil(self.contexts[node].node_config["partition-id"], reply)
            replies.append(reply)
        return replies


def run(strategy, line, rounds=3):
    arrays = strategy.start(line, records.record_of(weights()), num_rounds=rounds).arrays
    return records.weights_of(arrays)


PLAIN = run(FedAvg(), Line(client()))


def test_without_loss_the_weights_are_flowers_own() -> None:
    strategy = Compressed(FedAvg(), "fedavg")
    got = run(strategy, Line(client(compress_mod)))
    for name, array in PLAIN.items():
        np.testing.assert_allclose(got[name], array, atol=1e-5)
    assert got["norm.num_batches_tracked"] == 15 and got["norm.num_batches_tracked"].dtype == np.int64
    assert not strategy.refused


@pytest.mark.parametrize("down", [None, "quantised:step=0.5"])
@pytest.mark.parametrize(
    "inner", [FedAvg, lambda: FedProx(proximal_mu=0.1), lambda: FedAdam(eta=0.5, eta_l=0.1, tau=0.1)]
)
def test_bytes_are_counted_on_both_sides_and_few(inner, down) -> None:
    strategy = Compressed(inner(), "quantised:step=0.5", down)
    run(strategy, Line(client(compress_mod)))
    assert [row["round"] for row in strategy.rounds] == [1, 2, 3]
    for row in strategy.rounds:
        for what in ("train", "evaluate"):
            assert row[what]["bytes_up"] == row[what]["bytes_up_of_clients"]
            assert row[what]["bytes_down"] == row[what]["bytes_down_of_clients"]
            assert row[what]["messages"] == row[what]["clients"] == 3
        assert row["bytes_whole"] > WHOLE
        assert row["train"]["bytes_up"] < 3 * WHOLE / 7
        assert 0 < row["train"]["formula_bytes_up"] < 3 * WHOLE / 7
    first, last = strategy.rounds[0], strategy.rounds[-1]
    assert first["train"]["bytes_down"] > 3 * WHOLE
    if down:
        assert last["evaluate"]["bytes_down"] < 3 * WHOLE / 7, "updates alone, once clients have weights"
        assert last["train"]["bytes_down"] < 1500, "nothing: they came with the evaluation before"
    else:
        assert last["train"]["bytes_down"] > 3 * WHOLE


def test_what_is_left_out_goes_with_the_next_update() -> None:
    """Two-way and coarse: the sum of all updates arrives but for what the codecs still hold."""
    got = run(Compressed(FedAvg(), "quantised:step=1", "quantised:step=1"), Line(client(compress_mod)), rounds=12)
    want = run(FedAvg(), Line(client()), rounds=12)
    off, moved = got["w"] - want["w"], want["w"] - weights()["w"]
    assert np.linalg.norm(off) < 0.25 * np.linalg.norm(moved)


@pytest.mark.parametrize("codec", sorted(UPDATES))
def test_every_codec_goes_up_and_down(codec) -> None:
    """With what each keeps from round to round, in the state of Flower's contexts."""
    strategy = Compressed(FedAvg(), codec, codec)
    run(strategy, Line(client(compress_mod)), rounds=4)
    assert not strategy.refused and not strategy.failed
    assert [row["train"]["clients"] for row in strategy.rounds] == [3] * 4
    assert [row["evaluate"]["clients"] for row in strategy.rounds] == [3] * 4


def test_the_order_of_arrival_and_another_run_change_nothing() -> None:
    def one(backwards, seed=0):
        strategy = Compressed(FedAvg(), "quantised:step=1", "quantised:step=1", seed=seed)
        return run(strategy, Line(client(compress_mod), backwards=backwards)), strategy.rounds

    (first, rows), (second, others) = one(False), one(True)
    assert rows == others
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)


def damaged(reply, data):
    name, _ = records.arrays_of(reply.content)
    reply.content[name] = ArrayRecord({"000000": Array("uint8", (len(data),), FORMAT, data)})
    return reply


def without_record(reply):
    del reply.content["edgekit"]
    return reply


def as_it_is(reply):
    name, _ = records.arrays_of(reply.content)
    reply.content[name] = records.record_of(weights())
    return reply


def two(reply):
    reply.content["more"] = records.packed([b""])
    return reply


def other_record(reply):
    reply.content["edgekit"] = ConfigRecord({"client": "zero"})
    return reply


@pytest.mark.parametrize(
    ("spoil", "error", "told"),
    [
        (lambda reply: damaged(reply, b""), PayloadError, "0 B"),
        (lambda reply: damaged(reply, b"\xff" * 50), PayloadError, "integers"),
        (lambda reply: damaged(reply, bytes(50)), PayloadError, "integers"),
        (without_record, UsageError, "first of its mods"),
        (as_it_is, PayloadError, "among the client's mods"),
        (two, PayloadError, "2 array records"),
        (other_record, PayloadError, "a number"),
    ],
)
def test_a_broken_reply_is_a_typed_error_and_the_round_goes_on(spoil, error, told) -> None:
    strategy = Compressed(FedAvg(), "quantised", "quantised")
    line = Line(client(compress_mod), spoil=lambda number, reply: spoil(reply) if number == 1 else reply)
    strategy.start(line, records.record_of(weights()), num_rounds=2)
    assert [row["train"]["clients"] for row in strategy.rounds] == [2, 2]
    assert {node for _, node, _ in strategy.refused} == {999}
    found = [each for number, node, each in strategy.refused]
    assert any(isinstance(each, error) and told in str(each) for each in found), found


def test_a_round_of_broken_replies_leaves_the_weights() -> None:
    strategy = Compressed(FedAvg(), "quantised")
    line = Line(client(compress_mod), spoil=lambda number, reply: damaged(reply, b"x"))
    strategy.start(line, records.record_of(weights()), num_rounds=1)
    assert strategy.rounds[0]["train"]["refused"] == 3


def test_a_client_that_lost_its_state_gets_all_weights_again() -> None:
    strategy = Compressed(FedAvg(), "quantised", "quantised")
    line = Line(client(compress_mod))

    def lose(number, reply):
        if number == 1:
            line.contexts[999].state = RecordDict()
        return reply

    line.spoil = lose
    strategy.start(line, records.record_of(weights()), num_rounds=3)
    errors = [row[what]["messages"] - row[what]["clients"] for row in strategy.rounds for what in ("train", "evaluate")]
    # It says that it lacks them, and then they come.
    assert errors == [0, 1, 0, 1, 0, 1]
    assert not strategy.refused


def test_a_reply_that_was_lost_does_not_move_the_client_twice() -> None:
    """The server does not know that weights arrived; the client takes what it lacks of them."""
    strategy = Compressed(FedAvg(), "quantised", "quantised")
    line = Line(client(compress_mod))
    receive = line.send_and_receive

    def drop(messages, **named):
        replies = receive(messages, **named)
        return [
            each for each in replies if (each.metadata.message_type, each.metadata.src_node_id) != ("evaluate", 999)
        ]

    line.send_and_receive = drop  # type: ignore[method-assign]
    strategy.start(line, records.record_of(weights()), num_rounds=4)
    assert not strategy.refused
    assert [row["train"]["clients"] for row in strategy.rounds] == [3] * 4
    assert [row["train"]["bytes_up"] for row in strategy.rounds] == [
        row["train"]["bytes_up_of_clients"] for row in strategy.rounds
    ]


def test_a_client_that_goes_wrong_is_flowers_error() -> None:
    def wrong(message, context):
        reply = learn(message, context)
        if context.node_config["partition-id"] == 2:
            reply.content["arrays"] = records.record_of({"w": np.zeros(3, np.float32)})
        return reply

    strategy = Compressed(FedAvg(), "quantised")
    run(strategy, Line(client(compress_mod, train=wrong)), rounds=1)
    assert strategy.rounds[0]["train"]["clients"] == 2 and not strategy.refused


def test_the_mod_without_the_strategy_says_what_is_missing() -> None:
    line = Line(client(compress_mod))
    config = ConfigRecord({"server-round": 1})
    content = RecordDict({"arrays": records.record_of(weights()), "config": config})
    (reply,) = line.send_and_receive([Message(content, 1000, "train")])
    assert reply.has_error() and "wrap the server's strategy" in reply.error.reason


def test_other_messages_pass_through() -> None:
    made = ClientApp(mods=[compress_mod])
    made.query()(lambda message, context: Message(RecordDict(), reply_to=message))
    reply = made(Message(RecordDict(), 1000, "query"), Line(made).contexts[1000])
    assert not reply.has_error() and "edgekit" not in reply.content


def test_bytes_are_those_of_flowers_count() -> None:
    content = RecordDict({
        "arrays": records.record_of(weights()),
        "config": ConfigRecord({"a": 1, "b": "text", "c": [1.0, 2.0], "d": True, "e": b"12"}),
        "metrics": MetricRecord({"m": 0.5}),
    })  # fmt: skip
    assert records.bytes_of(content) == sum(record.count_bytes() for record in content.values())
    assert records.bytes_of(RecordDict({"c": ConfigRecord({"empty": "", "none": []})})) == len("empty") + len("none")


def test_only_numpy_parts_of_edgekit_are_needed() -> None:
    """In a process of its own: this one has what other tests imported."""
    import subprocess

    code = (
        "import sys\nfrom edgekit.federate.flower import mod, strategy\n"
        "strategy.Compressed(strategy.Strategy, 'quantised')\n"
        "print(*(name for name in sys.modules))"
    ).replace("strategy.Strategy, ", "None, ")
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "edgekit.federate.flower.mod" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "sklearn", "PIL", "matplotlib", "ray"}
    own = {name for name in loaded if name.startswith("edgekit.")}
    allowed = ("codecs", "errors", "federate", "moves", "statefile", "tensorfile", "tensors")
    assert not {name for name in own if name.split(".")[1] not in allowed}
