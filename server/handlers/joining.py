"""Answers hello messages: who may join, and how it is to train."""

from collections.abc import Collection

from edgekit import tensorfile
from edgekit.errors import Refused
from edgekit.line.messages import Hello, Welcome
from edgekit.server.checkpoints import Checkpoints
from edgekit.server.fleet import Fleet
from edgekit.server.rounds import Rounds
from edgekit.server.session import Session
from edgekit.server.setup import Setup


def check_hello(
    setup: Setup,
    fleet: Fleet,
    rounds: Rounds,
    hello: Hello,
    waiting: Collection[str],
    away: Collection[Session] = (),
    checkpoints: Checkpoints | None = None,
) -> None:
    """Refused or Quarantined when the device may not join.

    `waiting` are names of those that are about to. Of those that are `away` it may take the place. With
    `checkpoints` all devices are to save now and then.
    """
    if hello.bundle != setup.digest:
        raise Refused(
            f"the device's bundle is {hello.bundle[:64]}, the server's {setup.digest}: give both the same bundle folder"
        )
    unknown = sorted(set(hello.classes) - set(setup.class_names)) if setup.class_names else []
    if unknown:
        raise Refused(
            f"{hello.device} has images of {', '.join(map(repr, unknown[:5]))}, the bundle's classes are "
            f"{', '.join(setup.class_names[:10])}: rename its folders, or export with all classes"
        )
    if setup.local_loss.weight and not hello.local:
        raise Refused(
            f"this run has a local loss, of which {hello.device}'s version of edgekit does not know: update it there, "
            "or start the server with --local-loss 0"
        )
    if (rounds.layers or rounds.policy.down) and not hello.layers:
        raise Refused(
            f"this run has --update-layers or --update-codec-down, of which {hello.device}'s version of edgekit does "
            "not know: update it there, or leave them out"
        )
    if checkpoints is not None and not hello.saves:
        raise Refused(
            f"this run has checkpoints, of which {hello.device}'s version of edgekit does not know: update it "
            "there, or start the server with --checkpoint 0"
        )
    if hello.device in waiting:
        raise Refused(f"a device named {hello.device} has just come: give this one another --name")
    fleet.check(hello, away)


def welcome(setup: Setup, fleet: Fleet, rounds: Rounds, session: Session, save: int = 0) -> Welcome:
    """How `session` is to train, where the run is, and the label that it is to save as, if any."""
    codec, optimizer, policy = setup.calibrator.codec, setup.optimizer, rounds.policy
    late = bool(policy.every) and rounds.number > 0
    if late:
        session.tables, session.tables_version = dict(rounds.tables), 0
    session.round = rounds.number
    return Welcome(
        session.number, fleet.steps_of(session), codec.codec_id, codec.config, setup.calibrator.masked,
        optimizer.name, optimizer.momentum,
        optimizer.weight_decay,
        front=rounds.whole() if late else b"",
        tables=tensorfile.dumps(rounds.tables) if late and rounds.tables else b"",
        noise_filling=setup.noise_filling is not None and setup.noise_filling.asks,
        epoch=fleet.epochs_done(session.hello.epochs),
        round=rounds.number,
        rounds=rounds.per_epoch(fleet),
        round_epochs=policy.every.epochs,
        round_seconds=policy.every.seconds,
        update_codec=policy.codec.codec_id,
        update_config=policy.codec.config,
        norms=policy.norms,
        down_codec=policy.down.codec_id if policy.down else "",
        down_config=policy.down.config if policy.down else {},
        update_layers=rounds.layers,
        resting=session.resting,
        local_loss=setup.local_loss.weight,
        token=session.token,
        save=save,
    )  # fmt: skip
