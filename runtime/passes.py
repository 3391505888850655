"""Passes: forward and backward pass of a front half that learns, by its graphs; and its local loss.

::

    image --front_train--> codes, feature, statistics       these the host reads
                     |---> saved activations                these stay where the engine computes
    gradient at the cut, saved activations --front_grad--> gradients of the weights, which the host reads
    feature, labels --local--> loss of the local head, its gradient at the cut, gradients of the head's weights
"""

from typing import Dict, List, Sequence, Type

import numpy as np

from edgekit.bundle import LOCAL, Bundle
from edgekit.codecs.base import Arrays
from edgekit.providers import AUTO, check_provider
from edgekit.runtime.backends.base import Backend, Fed, Kept
from edgekit.runtime.backends.registry import learner_class
from edgekit.runtime.golden import require_codes, require_gradients, require_names

MEANING = "it computes something else than what the bundle was exported with; run with --provider cpu"


class Passes:
    """The graphs that learn, on one engine and one provider; that of the local loss once `open_local` was called."""

    def __init__(self, bundle: Bundle, learner: Type[Backend], threads: int, provider: str = AUTO) -> None:
        self.backend_id = learner.backend_id
        self.provider = learner.provider_for(provider, bundle.provider)
        if provider == AUTO and bundle.wanted_provider != bundle.provider:
            self.provider = self.provider._replace(wanted=bundle.wanted_provider, reason=bundle.provider_reason)

        def load(key: str) -> Backend:
            model, graph = bundle.read(bundle.graphs[key].file), bundle.graphs[key]
            self._open.append(learner(model, graph, threads, bundle.device, self.provider.name))
            return self._open[-1]

        self._load = load
        self._open: List[Backend] = []
        self._train, self._grad = load("front_train"), load("front_grad")
        self._origin, self._feature, self._classes = bundle.path, bundle.feature_tensor, bundle.classes

    def open_local(self) -> None:
        """Loads the graph of the local loss, which the bundle must have; it needs its weights then."""
        self._local = self._load(LOCAL)

    def set_weights(self, values: Arrays) -> None:
        """Gives the graphs those of `values` that they hold; each is brought to where they compute once."""
        placed: Dict[str, Kept] = {}
        for backend in self._open:
            held = [spec.name for spec in backend.graph.held if spec.name in values]
            placed.update((name, self._train.place(values[name])) for name in held if name not in placed)
            backend.set_weights({name: placed[name] for name in held})

    def forward(self, image: np.ndarray) -> Dict[str, Kept]:
        """The outputs of front_train for `image` (n,C,H,W) f32, normalised; and "image" itself, for `backward`."""
        placed = self._train.place(image)
        return dict(self._train.run_kept({"image": placed}), image=placed)

    def backward(self, kept: Dict[str, Kept], gradient: np.ndarray) -> Arrays:
        """d loss / d weight by weight name, from what `forward` gave and `gradient` (n,C,h,w) f32 at the cut."""
        known: Dict[str, Fed] = dict(kept, gradient=gradient)
        computed = self._grad.run({spec.name: known[spec.name] for spec in self._grad.graph.inputs})
        return {name[len("gradient.") :]: value for name, value in computed.items()}

    def local(self, kept: Dict[str, Kept], labels: np.ndarray) -> Arrays:
        """The outputs of the graph of the local loss, for what `forward` gave and `labels` (n,classes) f32, one-hot."""
        computed = self._local.run({"feature": kept[self._feature], "labels": labels})
        # Copies: they wait for the server's reply, and an engine may write its next outputs where the last ones are.
        return {name: array.copy() for name, array in computed.items()}

    def check_local(self, golden: Arrays) -> None:
        """BackendError unless the present weights give the gradients of the local loss in `golden`.

        It is a bundle's golden data; BundleError when something lacks there.
        """
        require_names(self._origin, golden, {"labels": np.empty((len(golden["image"]), self._classes))})
        computed = self.local(self.forward(golden["image"]), golden["labels"])
        gradients = {"local." + name: array for name, array in computed.items()}
        require_names(self._origin, golden, gradients)
        # Each for itself: the gradient at the cut is a hundredth of the weights', and is what the front half learns by.
        for name, array in gradients.items():
            require_gradients("provider '{}'".format(self.provider.name), {name: array}, golden, MEANING)

    def check(self, golden: Arrays, names: Sequence[str]) -> None:
        """BackendError unless the present weights give the codes of these `names` and the gradients in `golden`.

        It is a bundle's golden data; BundleError when something lacks there.
        """
        kept = self.forward(golden["image"])
        codes = {"training." + name: kept[name].array() for name in names}
        require_names(self._origin, golden, dict(codes, gradient=kept[self._feature].array()))
        engine = "provider '{}'".format(self.provider.name)
        require_codes(engine, codes, golden, "golden codes", MEANING)
        computed = self.backward(kept, golden["gradient"])
        gradients = {"gradient." + name: array for name, array in computed.items()}
        require_names(self._origin, golden, gradients)
        require_gradients(engine, gradients, golden, MEANING)

    def close(self) -> None:
        for backend in self._open:
            backend.close()


def check_offered(asked: str, backend_id: str) -> None:
    """What a device would say of `asked` as soon as it opened its bundle: UsageError and BackendError."""
    check_provider(asked)
    if asked != AUTO:
        learner_class(backend_id).provider_for(asked, asked)
