"""Device: the loop of one device: epochs of training, evaluation of what is deployed, events, and what is kept."""

import time
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from edgekit.errors import UsageError
from edgekit.runtime.evaluation import tested_after
from edgekit.runtime.front import Front
from edgekit.runtime.keep import Keeper
from edgekit.runtime.line import WentBack
from edgekit.runtime.place import Place
from edgekit.runtime.saver import going_on, restore, saver_of, state_of, welcome_of
from edgekit.runtime.session import Images, Options, Session, check_augment, check_options
from edgekit.runtime.transport import Transport

Event = Dict[str, Any]


class Device:
    """One device: a front half, its share of the training images, and the line to the server."""

    def __init__(
        self,
        front: Front,
        transport: Transport,
        options: Options,
        on_event: Callable[[Event], None],
        classes: Sequence[str] = (),
    ) -> None:
        self.front = front
        #: Names of the classes that the device has images of, as its bundle calls them.
        self.classes = classes
        self.options = options
        self.session = Session(front, transport, options)
        self.meter = transport.meter
        self._on_event = on_event
        self._rng = np.random.default_rng(options.seed)
        #: Where it is in its training.
        self._place = Place(0)

    def train(self, train: Images, test: Images, validation: Optional[Images] = None) -> Event:
        """Trains for the planned epochs, evaluating after each or every few; returns the "done" event.

        Where front halves are averaged there is a round before each test, so that what is tested is what all have.
        `validation` images, if any, decide which pair of halves is the best. UsageError, before the server is spoken
        to, where the folder to keep the front half in holds an earlier one, cannot be written to, or has no room.
        """
        steps = self.steps_per_epoch(train)
        self._keep = Keeper(self.front, self.options, self._on_event)
        saver = self.session.saver = saver_of(self.options, self.front.digest, train, self._tell)
        saver.state = self._state
        state = saver.latest() if self.options.resume else None
        before, done = (None, {}) if state is None else going_on(self.session, state, self._tell)
        if done:
            self._on_event(done)
            return done
        label = 0
        if before is not None:
            self.meter.restore(before["meter"])
            place = self._restored(before)
        else:
            place = Place(self.session.hello(len(train.labels), steps, self.options.epochs, self.classes))
            self._on_event(self._event("connected", place.begun, 0.0))
            if state is not None and not self.session.rounds.averaged:
                # Nobody else has what this device had learned.
                self.front.set_state(state["session"]["weights"])
            place.order, label = dict(self._rng.bit_generator.state), self.session.welcome.save
        while True:
            self._place = place
            try:
                self.session.save(label)
                last = self._train(place, train, test, validation)
                saver.end(self._done(last), self.session.welcome)
                if self.session.bye():
                    saver.confirm()
                done = self._done(last)
                self._on_event(done)
                return done
            except WentBack as back:
                place, label = self._restored(saver.go_back(back.label)), 0

    def _train(self, place: Place, train: Images, test: Images, validation: Optional[Images]) -> Event:
        """Trains from `place` on, to the end; the event of the last epoch."""
        options, session = self.options, self.session
        event = self._event("epoch", place.begun, place.latest["loss"])
        while place.epoch <= options.epochs:
            epoch, last = place.epoch, place.epoch == options.epochs
            evaluated = last or epoch % options.evaluate_every == 0
            start, before = time.perf_counter(), session.images
            self._epoch(train, place, evaluated)
            # A device that rested all the time keeps the figures that it had.
            loss = place.learned(session.local.total)
            if options.regroup_every and epoch % options.regroup_every == 0 and not last:
                session.regroup()
            elapsed = time.perf_counter() - start
            place.spend()
            tested: Event = {}
            if evaluated:
                self._on_event(self._event("testing", epoch, loss))
                tested = tested_after(epoch, session, test, validation)
            event = self._event("epoch", epoch, loss)
            event.update(tested, train_accuracy=place.latest["accuracy"])
            self._keep.now(epoch, bool(tested) and tested["fleet"]["best"])
            event.update(images_per_s=(session.images - before) / elapsed, train_s=place.train_s)
            event.update(seconds=dict(self.meter.seconds))
            if session.local.weight:
                event["head_loss"] = place.latest["head"]
            if session.codebooks:
                event["codebook"] = session.codebooks.health()
            self._on_event(event)
            place.next(session.local.total)
        if place.begun >= options.epochs:
            # The run was over when this device came: it takes the network that came of it.
            session.round(0, test=True)
            event.update(tested_after(options.epochs, session, test, validation))
            self._keep.now(options.epochs, best=False)
        return event

    def _done(self, event: Event) -> Event:
        """The "done" event, given that of the last epoch."""
        done = dict(event, **self._event("done", self.options.epochs, event["loss"]))
        done.update(train_s=self._place.train_s, bytes=self.meter.by_kind(), seconds=dict(self.meter.seconds))
        return done

    def steps_per_epoch(self, train: Images) -> int:
        """Batches that the images of `train` are split into; UsageError for options that cannot be trained with."""
        options = self.options
        check_options(options)
        check_augment(options.augment, self.front.codec, train.images.shape[1:])
        if len(train.labels) < 2:
            told = "{} training images: expected at least 2 for a batch"
            raise UsageError(told.format(len(train.labels)))
        # Batch norm cannot train on one image alone, which would be left of an odd number in batches of 2.
        return min(-(-len(train.labels) // options.batch), len(train.labels) // 2)

    def batches(self, n: int, steps: int) -> List[np.ndarray]:
        """One epoch: the indices of `steps` batches of about equal size, `n` images in an order of its own.

        Where there are fewer images than steps each is a batch.
        """
        return [batch for batch in np.array_split(self._rng.permutation(n), steps) if len(batch)]

    def _epoch(self, train: Images, place: Place, ends: bool) -> None:
        """One pass over the share, or what is left of it, with its rounds.

        `ends`: the front half must be in step after it.
        """
        session, rounds, epoch = self.session, self.session.rounds, place.epoch
        begun = shown = time.perf_counter()
        later = (self.options.epochs - epoch) * len(train.labels)
        if place.order is not None:
            self._rng.bit_generator.state = place.order
        place.order = dict(self._rng.bit_generator.state)
        batches = self.batches(len(train.labels), self.session.steps_per_epoch)
        left = sum(map(len, batches[place.done :]))
        if place.at_round:
            self._round(place, later + left, ends and not left)
        for leg in rounds.legs(batches, epoch, ends, not later, place):
            chosen = list(leg) if rounds.resting else []
            for sent, reply in session.steps(train, leg):
                n = len(sent.images)
                place.add(n, reply)
                left -= n
                if reply.warning not in ("", place.warning):
                    self._on_event(dict(self._event("warned", epoch, reply.loss), warning=reply.warning))
                place.warning = reply.warning
                self._keep.if_due(epoch - 1)
                if time.perf_counter() - shown > 0.3:
                    event = self._event("progress", epoch, place.loss / max(place.images, 1))
                    event["images_per_s"] = place.images / (time.perf_counter() - begun)
                    self._on_event(event)
                    shown = time.perf_counter()
            left -= sum(map(len, chosen))
            place.done += len(chosen)
            if rounds.due:
                self._round(place, later + left, ends and not left)

    def _round(self, place: Place, left: int, test: bool) -> None:
        """The round after a leg; `left` images are still planned."""
        place.at_round = True
        self.session.round(left, test)
        place.at_round, place.legs, place.round_at = False, place.legs + 1, place.done

    def _state(self) -> Dict[str, Any]:
        """All that goes on from here, see `edgekit.runtime.saver`."""
        session = state_of(self.session, self.front)
        return {"session": session, "place": self._place.state(), "meter": self.meter.state()}

    def _restored(self, state: Dict[str, Any]) -> Place:
        """The place of `state`, to which session and front half have gone back."""
        self.session.begin(welcome_of(state["session"]))
        restore(self.session, self.front, state["session"])
        place = Place.restored(state["place"])
        self._on_event(self._event("went_back", place.epoch, place.latest["loss"]))
        return place

    def _tell(self, event: Event) -> None:
        self._on_event(dict(event, device=self.options.name))

    def _event(self, event: str, epoch: int, loss: float) -> Event:
        session = self.session
        return {
            "event": event,
            "device": self.options.name,
            "epoch": epoch,
            "epochs": self.options.epochs,
            "step": session.step,
            "steps": session.planned,
            "images": session.images,
            "loss": loss,
            # Means over all steps so far, of errors over the gradients that came.
            "staleness": session.staleness / max(session.updates, 1),
            "bytes_up": self.meter.training_bytes("up"),
            "bytes_down": self.meter.training_bytes("down"),
            **session.errors.told(),
        }
