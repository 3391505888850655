"""A user's own network by name, "package.module:factory".

A failure inside the user's code is chained to the error raised here, so that Python shows where it happened.
"""

import importlib
import os
import sys
import traceback
from typing import Any

import torch
from torch import nn

from edgekit.errors import ExportError, UnknownName, UsageError


def load_model(reference: str, arguments: dict[str, Any]) -> nn.Module:
    """What the factory `reference`, "package.module:factory", returns for the keyword `arguments`.

    The current directory is searched first, as by ``python -m``. UsageError when nothing of that name exists,
    ExportError when the user's code raises or does not return a network.
    """
    module_name, _, name = reference.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise UsageError(f"model '{reference}': expected package.module:factory, for example mynet.model:make")
    module = _import(module_name)
    factory = getattr(module, name, None)
    if factory is None:
        known = [key for key, value in vars(module).items() if callable(value)]
        raise UnknownName("factory", name, known, f"module {module_name} does not define it")
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UsageError(
            f"{reference} is a {type(factory).__name__}: expected a function or class that makes a new "
            "torch.nn.Module each time it is called"
        )
    try:
        network = factory(**arguments)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ExportError(f"{reference}({given}) raised {_told(error)}; expected a torch.nn.Module") from error
    if not isinstance(network, nn.Module):
        raise ExportError(
            f"{reference} returned {_a(network)}: expected a torch.nn.Module; return the network itself, in training "
            "mode and on the CPU"
        )
    return network


def classes_of(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """The number of scores that `network`, in evaluation mode, gives one zero image of `input_shape` (C,H,W).

    UsageError unless the scores have shape (1,classes); ExportError when the network raises.
    """
    shape = (1, *input_shape)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            scores = network(torch.zeros(shape))
    except Exception as error:
        raise ExportError(
            f"{type(network).__name__} raised {_told(error)} on an image of shape {shape}; if it expects another "
            "shape, say so with --input C,H,W"
        ) from error
    finally:
        network.train(training)
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2 or len(scores) != 1:
        raise UsageError(
            f"{type(network).__name__} returned {_a(scores)} for an image of shape {shape}: expected the scores alone, "
            "a tensor of shape (1, classes)"
        )
    return scores.shape[1]


def _import(name: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        # A module is imported once: what it draws then must not decide the weights drawn after.
        with torch.random.fork_rng(devices=()):
            return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"module '{error.name}' is neither in {folder} nor installed: change to the folder that holds it, or "
                "put that folder on PYTHONPATH"
            ) from None
        raise ExportError(f"importing {name} raised {_told(error)}; expected a module that imports") from error


def _told(error: Exception) -> str:
    """Type, message, and the last line of the user's code that it passed through."""
    ours_or_torch = (__file__, os.path.dirname(torch.__file__), importlib.__file__, "<")
    lines = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours_or_torch)
    ]
    where = f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


def _a(value: object) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
    return f"a {type(value).__name__}{shape}"
