"""The clients of the stock app: `app` without edgekit's mod, `packed` with it."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from task import accuracy, train

from edgekit.federate.flower.mod import compress_mod


def learn(message: Message, context: Context) -> Message:
    arrays, config = message.content["arrays"], message.content["config"]
    weights = {name: array.numpy() for name, array in arrays.items()}
    client, clients = context.node_config["partition-id"], context.node_config["num-partitions"]
    weights, images = train(weights, context.run_config["digits"], client, clients, config["server-round"])
    content = {
        "arrays": ArrayRecord({name: Array(np.asarray(array)) for name, array in weights.items()}),
        "metrics": MetricRecord({"num-examples": images}),
    }
    return Message(RecordDict(content), reply_to=message)


def test(message: Message, context: Context) -> Message:
    weights = {name: array.numpy() for name, array in message.content["arrays"].items()}
    right = accuracy(weights, context.run_config["digits"])
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "accuracy": right})}), reply_to=message)


def make(*mods):
    made = ClientApp(mods=list(mods))
    made.train()(learn)
    made.evaluate()(test)
    return made


app = make()
packed = make(compress_mod)
