"""The rounds of a training that is planned, for what they take of its bytes."""

from edgekit.errors import UsageError
from edgekit.export.rate.rounds import RoundPlan
from edgekit.launch.settings import Run
from edgekit.server.policy import RoundPolicy
from edgekit.server.train import OptimizerConfig


def counted(run: Run) -> bool:
    """Whether `run` is held to a number of bytes that its rounds have part in. UsageError for rounds by the clock."""
    every = run.server.fleet.rounds(run.training.devices).every
    if not every or run.coding.goal is None or run.coding.goal.target_bytes is None:
        return False
    if every.seconds:
        raise UsageError(
            f"--target-bytes counts rounds too, and by the clock (--sync-every {run.server.fleet.sync_every}) nobody "
            "knows how many images come between two: give --sync-every in steps or epochs"
        )
    return True


def planned(run: Run, images: int) -> RoundPlan:
    """The rounds of `run`, which has some after steps or epochs, on so many training images."""
    training, server = run.training, run.server
    policy = server.fleet.rounds(training.devices)
    share = int(images * (1.0 - training.validation)) // training.devices
    steps, joint = _steps(run, share)
    rounds = _rounds(policy, training.epochs, training.evaluate_every, steps)
    active = sum(policy.sampling.active(training.devices, number) for number in range(rounds))
    optimizer = OptimizerConfig(server.optimizer, server.lr, server.momentum, server.weight_decay)
    return RoundPlan(
        up=policy.codec,
        down=policy.down or policy.codec,
        images=share * training.epochs / rounds,
        steps=steps * training.epochs // rounds,
        receivers=training.devices * rounds / active,
        optimizer=server.optimizer,
        rate=optimizer.rate(joint, training.batch),
        momentum=server.momentum,
        statistics=policy.norms == "average",
        local_loss=server.local_loss,
    )


def _steps(run: Run, share: int) -> tuple[int, int]:
    """Steps of an epoch of a device that has `share` images, and the images of a step of all devices."""
    devices, batch = run.training.devices, run.training.batch
    patience = run.server.fleet.patience(devices)
    alone = max(-(-share // batch), 1)
    joint = patience.joint_images(devices, batch) if patience.lockstep else batch
    return (max(-(-share * devices // joint), alone) if patience.lockstep else alone), joint


def _rounds(policy: RoundPolicy, epochs: int, tests: int, steps: int) -> int:
    """Rounds in all `epochs`, with a test after every so many."""
    every = policy.every
    if every.steps:
        return epochs * max(round(steps / every.steps), 1)
    return sum(epoch % every.epochs == 0 or epoch % tests == 0 or epoch == epochs for epoch in range(1, epochs + 1))
