"""Both halves in PyTorch, with the interfaces of the exported ones: for runs that are too long for the exported graphs.

`TorchFront` stands where a device has `edgekit.runtime.learn.FrontHalf`, `TorchProgram` where a server's back half has
an exported program. `bench/equal.py` compares both with the deployed line.
"""

import numpy as np
import torch
from bfloat16 import bfloat16, precision
from torch import nn

from edgekit.bundle import HEAD
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.data.base import Dataset
from edgekit.export.local_head import LocalHead
from edgekit.runtime.front import Forward, Front, Local
from edgekit.runtime.optim import Optimizer
from edgekit.server.train import BackHalf, OptimizerConfig


class TorchFront(Front):
    """`module` as a front half for the images of `dataset`, and its local `head`; with `frozen` they learn nothing."""

    digest = origin = "in process"

    def __init__(
        self,
        module: nn.Module,
        codec: FeatureCodec,
        tables: Arrays,
        dataset: Dataset,
        weight_decay: float,
        *,
        mixed: bool = False,
        frozen: bool = False,
        head: LocalHead | None = None,
        correction: float = 0.0,
    ) -> None:
        self.module = channels_last(module, mixed).train()
        self.codec, self.tables, self.classes = codec, tables, len(dataset.classes)
        self.mean, self.std = (np.array(values, dtype=np.float32) for values in (dataset.mean, dataset.std))
        norms = [name for name, layer in module.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        self.statistics = tuple(f"{name}.{key}" for name in norms for key in ("running_mean", "running_var"))
        self.variances = tuple(f"{name}.running_var" for name in norms)
        self.learned = (*(name for name, _ in module.named_parameters()), *self.statistics)
        self._mixed, self._frozen, self._head, self._correction = mixed, frozen, head, correction
        #: The head's weights by name, once it learns.
        self._of_head: dict[str, nn.Parameter] = {}
        # PyTorch's own: it rounds otherwise than numpy's, and is faster. The rate comes with every step.
        self._optimizer = torch.optim.SGD(module.parameters(), 0.0, momentum=0.9, weight_decay=weight_decay)

    @property
    def can_reorder(self) -> bool:
        return True

    @property
    def state(self) -> Arrays:  # type: ignore[override]
        return {name: tensor.detach().numpy() for name, tensor in self._tensors().items()}

    def set_tables(self, tables: Arrays) -> None:
        self.tables = tables

    def set_state(self, arrays: Arrays) -> None:
        own = self._tensors()
        with torch.no_grad():
            for name, array in arrays.items():
                own[name].copy_(torch.from_numpy(array))

    def encode(self, image: np.ndarray) -> Arrays:
        self.module.eval()
        with torch.no_grad():
            feature = self._coded(self.output(image))
        self.module.train()
        return self.codec.quantize(feature, self.tables)

    def forward(self, image: np.ndarray) -> Forward:
        output = self.output(image)
        feature = self._coded(output)
        order = self.codec.order(feature.shape[1], self.tables)
        return Forward(image, self.codec.quantize(feature, self.tables), feature, (output, order))

    def backward(self, forward: Forward, gradient: np.ndarray) -> Arrays:
        output, order = forward.kept
        if self._correction:
            gradient = gradient + self._pull(forward, gradient)
        self._optimizer.zero_grad()
        if not self._frozen:
            arrived = np.ascontiguousarray(gradient[:, np.argsort(order)])
            output.backward(torch.from_numpy(arrived).to(output.dtype))
        return {name: weight.grad.numpy() for name, weight in self.module.named_parameters() if weight.grad is not None}

    def open_local(self) -> None:
        if self._head is None:
            super().open_local()
        elif not self._of_head:
            self._of_head = {HEAD + name: weight for name, weight in self._head.named_parameters()}
            self._optimizer.add_param_group({"params": list(self._of_head.values())})
            self.learned = (*self.learned, *self._of_head)

    def local(self, forward: Forward, labels: np.ndarray) -> Local:
        assert self._head is not None
        output, order = forward.kept
        feature = output.detach().float().requires_grad_()
        loss = nn.functional.cross_entropy(self._head(feature), torch.from_numpy(labels))
        at_cut, *of_weights = torch.autograd.grad(loss, [feature, *self._of_head.values()])
        gradients = {name: gradient.numpy() for name, gradient in zip(self._of_head, of_weights, strict=True)}
        return Local(loss.item(), np.ascontiguousarray(at_cut.numpy()[:, order]), gradients)

    def learn(self, gradients: Arrays, optimizer: Optimizer, learning_rate: float) -> None:
        """One step of PyTorch's SGD with what `backward` left in the weights' `.grad`, and `local` gave of the head."""
        if self._frozen:
            return
        for name, weight in self._of_head.items():
            weight.grad = torch.from_numpy(gradients[name])
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()

    def _pull(self, forward: Forward, gradient: np.ndarray) -> np.ndarray:
        """FedLite's correction (arXiv:2201.11865, section 3.2): the gradient of a pull from each value to its codeword.

        Its weight is the correction times the rms of `gradient` over the feature's spread, so that it means the same
        in every network, and as much early as late.
        """
        away = forward.feature - self.codec.dequantize(forward.codes, self.tables)
        weight = self._correction * np.sqrt(np.square(gradient).mean()) / forward.feature.std()
        return np.asarray(np.float32(weight) * away)

    def close(self) -> None:
        return None

    def output(self, image: np.ndarray) -> torch.Tensor:
        """The feature of `image` (n,C,H,W) f32, normalised, channels in the network's order, as the module gives it."""
        with precision(self._mixed):
            output: torch.Tensor = self.module(torch.from_numpy(image).contiguous(memory_format=torch.channels_last))
        return output

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {**self.module.state_dict(), **self._of_head}

    def _coded(self, output: torch.Tensor) -> np.ndarray:
        """Channels in coded order."""
        feature = output.detach().float().numpy()
        return np.ascontiguousarray(feature[:, self.codec.order(feature.shape[1], self.tables)])


class TorchProgram:
    """`module` as one of a back half's two programs."""

    def __init__(self, module: nn.Module, training: bool, mixed: bool) -> None:
        self.name = "the back half"
        self.batch = (2 if training else 1, 1 << 16)
        self._module, self._training, self._mixed = module, training, mixed

    def __call__(self, feature: torch.Tensor) -> torch.Tensor:
        if self._module.training != self._training:
            self._module.train(self._training)
        with precision(self._mixed):
            logits: torch.Tensor = self._module(feature.contiguous(memory_format=torch.channels_last))
        return logits.float()


def torch_back(module: nn.Module, optimizer: OptimizerConfig, mixed: bool) -> BackHalf:
    """`module` as a server's back half."""
    channels_last(module, mixed).train()
    weights = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    training, evaluation = (TorchProgram(module, mode, mixed) for mode in (True, False))
    return BackHalf(training, evaluation, weights, torch.device("cpu"), optimizer)


def channels_last(half: nn.Module, mixed: bool) -> nn.Module:
    """`half` with its weights as PyTorch is fastest with; `mixed`: it computes in bfloat16 (see bfloat16.py)."""
    half.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if mixed:
        bfloat16(half)
    return half
