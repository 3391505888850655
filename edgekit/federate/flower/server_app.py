"""The server of `edgekit federate`: rounds by one of Flower's strategies, a test after them, and the network kept.

What it has to tell goes to its standard output, a JSON object a line.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp, strategy

from edgekit import errors, tensorfile
from edgekit.class_names import said_of
from edgekit.errors import ChildFailed, EdgekitError
from edgekit.federate.flower import records
from edgekit.federate.flower.strategy import Compressed
from edgekit.federate.run import Plan
from edgekit.federate.simulation.settings import parse_strategy
from edgekit.federate.simulation.task import Task, task
from edgekit.federate.training import evaluate
from edgekit.sampling import sampling

#: Seconds for which a round waits for its clients: a day, since they take as long as they must.
ROUND_S = 86_400.0

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Trains, and tells of each round; the last event is "done", or "failed" with the error's words and exit code."""
    torch.set_num_threads(1)
    try:
        _train(grid, task(str(context.run_config["task"])))
    except EdgekitError as error:
        tell({"event": "failed", "reason": str(error), "code": error.exit_code})
        raise


def tell(event: dict[str, Any]) -> None:
    # Flower's threads write there too: a line of its own, in one piece.
    sys.stdout.write(f"\n{json.dumps(event)}\n")
    sys.stdout.flush()


class Sampled(Compressed):
    """Asks the clients that the run's sampling draws; `nodes` are Flower's numbers of the clients, in order."""

    def __init__(self, inner: Any, nodes: Sequence[int], plan: Plan) -> None:
        up, down = plan.codecs()
        super().__init__(inner, up, down, plan.seed)
        self._nodes, self._plan = nodes, plan

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        names = [str(number) for number in range(len(self._nodes))]
        chosen = sampling(self._plan.sampling).chosen(names, server_round - 1, self._plan.seed)
        return super().configure_train(
            server_round, arrays, config, Chosen([self._nodes[int(name)] for name in chosen])
        )


class Chosen:
    """As much of a grid as a strategy asks for when it chooses: these nodes are all that there are."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self._nodes = nodes

    def get_node_ids(self) -> Sequence[int]:
        return self._nodes


def _train(grid: Grid, run: Task) -> None:
    told, plan = run.told, run.told.plan
    name, settings = parse_strategy(told.strategy)
    # All nodes that `Sampled` shows to the inner strategy take part.
    inner = getattr(strategy, name)(**settings, min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0)
    sampled = Sampled(inner, _nodes(grid, plan.clients), plan)
    began, tested = time.monotonic(), run.tested

    def close(number: int, arrays: ArrayRecord) -> None:
        """Tells of round `number`, which led to `arrays`."""
        if number == 0:
            return
        if sampled.failed or sampled.refused:
            _, _, reason = (sampled.failed or sampled.refused)[0]
            raise _failed(f"round {number}: a client failed: {reason}", str(reason))
        run.network.set(records.weights_of(arrays))
        row = sampled.rounds[-1]
        train = row["train"]
        event = {
            "event": "round", "round": number, "rounds": plan.rounds, "clients": train["clients"],
            "loss": row["metrics"]["loss"], "bytes_up": train["bytes_up"], "bytes_down": train["bytes_down"],
            "bytes_up_of_clients": train["bytes_up_of_clients"],
            "bytes_down_of_clients": train["bytes_down_of_clients"],
            "formula_bytes_up": train["formula_bytes_up"], "bytes_whole": row["bytes_whole"],
            "seconds": time.monotonic() - began,
        }  # fmt: skip
        if number % plan.evaluate_every == 0 or number == plan.rounds:
            right = evaluate(run.network, tested, plan.local.precision)
            event.update(accuracy=right.accuracy, test_loss=right.loss, images_tested=right.images)
        tell(event)

    initial = records.record_of(run.network.weights)
    sampled.start(grid=grid, initial_arrays=initial, num_rounds=plan.rounds, timeout=ROUND_S, evaluate_fn=close)
    tensorfile.write(told.network, run.network.folded(), said_of(told.classes))
    tell({"event": "done"})


def _nodes(grid: Grid, clients: int) -> list[int]:
    """Flower's numbers of the nodes, in order of the clients' own numbers."""
    asked = [Message(RecordDict(), node, MessageType.QUERY) for node in _present(grid, clients)]
    found = {}
    for reply in grid.send_and_receive(asked, timeout=ROUND_S):
        if reply.has_error():
            raise _failed(f"a client could not start: {reply.error.reason}", str(reply.error.reason))
        found[int(reply.content["client"]["number"])] = reply.metadata.src_node_id
    if sorted(found) != list(range(clients)):
        raise ChildFailed(f"Flower runs clients {sorted(found)}, expected {clients} from 0")
    return [found[number] for number in range(clients)]


def _present(grid: Grid, clients: int) -> list[int]:
    """The nodes, once all are there: simulated ones come one by one."""
    until = time.monotonic() + 300
    while len(nodes := list(grid.get_node_ids())) < clients:
        if time.monotonic() > until:
            raise ChildFailed(f"{len(nodes)} clients after 300 s, expected {clients}")
        time.sleep(0.2)
    return nodes


def _failed(message: str, reason: str) -> EdgekitError:
    """The error of `message`; its class where `reason` begins with the name of one of edgekit's."""
    kind = getattr(errors, reason.partition(":")[0], None)
    failed = ChildFailed(message)
    if isinstance(kind, type) and issubclass(kind, EdgekitError):
        failed.exit_code = kind.exit_code
    return failed
