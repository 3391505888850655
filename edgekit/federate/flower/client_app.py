"""The clients of `edgekit federate`: each trains the whole network, and packs its update itself.

What is left out stays in the state of Flower's context, so that any process may serve any client.
"""

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from edgekit import statefile
from edgekit.federate import wire
from edgekit.federate.flower import records
from edgekit.federate.flower.mod import compress_mod
from edgekit.federate.scaling import Place
from edgekit.federate.simulation.task import task

#: The record of what a client keeps from round to round.
KEPT = "edgekit-client"

app = ClientApp(mods=[compress_mod])


@app.query()
def number(message: Message, context: Context) -> Message:
    """Which client this node is."""
    return Message(RecordDict({"client": MetricRecord({"number": records.number_of(context)})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """The packed update of one round, and the figures of the training."""
    torch.set_num_threads(1)
    run, config = task(str(context.run_config["task"])), message.content["config"]
    client = run.client(records.number_of(context))
    if KEPT in context.state:
        client.restore(statefile.loads(context.state[KEPT]["state"]))
    place = Place(config["server-round"] - 1, run.told.plan.rounds)
    weights = records.weights_of(message.content["arrays"])
    fitted = client.fit(weights, place)
    context.state[KEPT] = ConfigRecord({"state": statefile.dumps(client.state)})
    told = {name: float(value) for name, value in fitted.told.items()}
    content = {
        "arrays": records.packed([wire.floats_alone(fitted.payload)]),
        "metrics": MetricRecord({"num-examples": fitted.images, **told}),
    }
    return Message(RecordDict(content), reply_to=message)
