"""ExportedProgram: the tensor program of a torch.export archive, run step by step.

::

    archive --> steps: an operator, its arguments, the names of its results
    feature --> step --> step --> ... --> logits

An archive names its operators, and these are looked up among aten's and plain arithmetic's; nothing else that it says
is called, evaluated or imported.
"""

import operator
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload

from edgekit.errors import BundleError
from edgekit.server.archive import DTYPES, MODEL, Declared, read_archive

_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)
#: aten's operators that no network has, and that reach beyond their tensors: to files, to other memory, to what torch
#: does elsewhere. Those that begin with "_" are torch's own; some of them check no bounds.
_BEYOND = re.compile(
    r"from_file|save|set_|set_data|resize_\w*|backward|grad|retain_grad|requires_grad_|set_grad_enabled|manual_seed"
    r"|_(?!(to_copy|unsafe_view|assert_\w+|softmax|log_softmax|adaptive_avg_pool[23]d|native_batch_norm_legit\w*"
    r"|weight_norm)$)\w*"
)
_PLAIN = re.compile(r"_operator\.(getitem|add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge)")
#: A dimension that may be of any size, within bounds that are told under its name.
_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)", re.ASCII)
_CPU = torch.device("cpu")
#: Where a dynamic batch has no end.
_MOST = 2**31
#: torch.export's numbers of memory formats and layouts.
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
_LAYOUTS = {7: torch.strided}
#: What comes of bytes that are no archive, and of JSON of another shape.
_UNREADABLE = (
    RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, NotImplementedError, OverflowError,
    zipfile.BadZipFile,
)  # fmt: skip


class Name(str):
    """Stands for the value of that name in arguments."""


class Step(NamedTuple):
    """A call of an operator."""

    call: Callable[..., Any]
    arguments: list[Any]
    named: dict[str, Any]
    #: Names of its results, and whether there are several.
    results: list[str]
    several: bool
    #: Names of values that no later step needs.
    last: list[str]


class ExportedProgram:
    """A Program (`edgekit.server.train`); `load_program` gives one. It has no weights until it shares some."""

    def __init__(
        self,
        name: str,
        declared: dict[str, Declared],
        batch: tuple[int, int],
        steps: list[Step],
        inputs: dict[str, str],
        constants: dict[str, torch.Tensor],
        feature: str,
        logits: str,
        device: torch.device,
    ) -> None:
        self.name = name
        #: What weights and buffers must be, by name.
        self.declared = declared
        self.batch = batch
        self._steps = steps
        self._inputs = inputs
        self._values: dict[str, torch.Tensor] = {key: value.to(device) for key, value in constants.items()}
        self._feature, self._logits = feature, logits
        #: Of weights and features, for speed: on a CPU convolutions and pooling are faster with channels last. That
        #: changes what looks at strides, and a view that is written to: it may be a copy then.
        self.layout = torch.channels_last
        called = {step.call for step in steps}
        if device.type != "cpu" or torch.ops.aten.as_strided.default in called:
            self.layout = torch.contiguous_format
        # A view is of a contiguous tensor only.
        self.replace(torch.ops.aten.view.default, torch.ops.aten.reshape.default)

    def replace(self, operator: Callable[..., Any], by: Callable[..., Any]) -> None:
        """Calls `by`, which takes the same arguments, wherever the program calls `operator`."""
        self._steps = [step._replace(call=by) if step.call is operator else step for step in self._steps]

    def share(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Takes `weights` as its own; BundleError unless names, shapes and dtypes agree."""
        wrong = sorted(set(self.declared) ^ set(weights))
        if wrong:
            raise BundleError(f"{self.name} and back.safetensors do not both have {wrong}: export the bundle again")
        for name, weight in weights.items():
            declared = self.declared[name]
            if declared.shape != weight.shape or declared.dtype != weight.dtype:
                raise BundleError(
                    f"{self.name}: '{name}' is {declared.dtype} {list(declared.shape)}, back.safetensors has "
                    f"{weight.dtype} {list(weight.shape)}: export the bundle again"
                )
        self._values.update({value: weights[name] for value, name in self._inputs.items()})

    def __call__(self, feature: torch.Tensor) -> torch.Tensor:
        values: dict[str, Any] = dict(self._values)
        values[self._feature] = feature.contiguous(memory_format=self.layout)

        def given(argument: Any) -> Any:
            if isinstance(argument, list):
                return [given(each) for each in argument]
            return values[argument] if isinstance(argument, Name) else argument

        for step in self._steps:
            result = step.call(*map(given, step.arguments), **{key: given(each) for key, each in step.named.items()})
            if step.several:
                values.update(zip(step.results, result, strict=True))
            elif step.results:
                values[step.results[0]] = result
            for name in step.last:
                del values[name]
        logits: torch.Tensor = values[self._logits]
        return logits


def load_program(data: bytes, name: str, device: torch.device = _CPU) -> ExportedProgram:
    """The program in archive `data`, for `device`; BundleError naming `name` when it is damaged or holds more."""
    try:
        archive = read_archive(data, name)
        module = archive.model["graph_module"]
        graph, signature = module["graph"], module["signature"]
        weights, constants, features = {}, {}, []
        for spec in signature["input_specs"]:
            ((kind, told),) = spec.items()
            if kind == "user_input":
                features.append(told["arg"]["as_tensor"]["name"])
                continue
            key = told[f"{kind}_name"]
            if kind == "parameter" or (kind == "buffer" and told["persistent"]):
                if key not in archive.weights:
                    raise BundleError(f"{name}: {MODEL} has '{key}', which is not among the weights")
                weights[told["arg"]["name"]] = key
            elif kind in ("buffer", "tensor_constant"):
                constants[told["arg"]["name"]] = archive.constants[key]
            else:
                raise BundleError(f"{name}: {MODEL} has an input of kind '{kind}', expected weights and one feature")
        ((outcome, told),) = ((kind, told) for spec in signature["output_specs"] for kind, told in spec.items())
        if outcome != "user_output" or len(features) != 1:
            raise BundleError(
                f"{name}: {MODEL} takes {len(features)} features and gives '{outcome}', expected a feature and logits"
            )
        (feature,), logits = features, told["arg"]["as_tensor"]["name"]
        steps = _steps(graph["nodes"], {*weights, *constants, feature}, logits, name, device)
        batch = _batch_bounds(graph["tensor_values"][feature], archive.model["range_constraints"], name)
        return ExportedProgram(name, archive.weights, batch, steps, weights, constants, feature, logits, device)
    except _UNREADABLE as error:
        raise BundleError(
            f"{name}: it cannot be read ({str(error)[:200]!r}): export it with torch {torch.__version__}"
        ) from error


def _steps(nodes: Any, known: set[str], logits: str, name: str, device: torch.device) -> list[Step]:
    """The steps that `nodes` stand for, where the values `known` are there before the first."""
    known, first = set(known), set(known)
    steps, uses = [], []
    for node in nodes:
        call = _operator(node["target"], name)
        used: set[str] = set()
        positional, named = [], {}
        for given in node["inputs"]:
            value = _argument(given["arg"], used, name, device)
            if given["kind"] == 2:
                named[str(given["name"])] = value
            else:
                positional.append(value)
        if used - known:
            raise BundleError(f"{name}: {MODEL} has '{min(used - known)}' before any step gives it")
        results, several = _results(node["outputs"])
        known.update(results)
        steps.append(Step(call, positional, named, results, several, []))
        uses.append(used | set(results))
    if logits not in known:
        raise BundleError(f"{name}: {MODEL} has '{logits}', and no step gives it")
    # From the end: who uses a value first there uses it last.
    needed = first | {logits}
    for index in range(len(steps) - 1, -1, -1):
        steps[index] = steps[index]._replace(last=sorted(uses[index] - needed))
        needed |= uses[index]
    return steps


def _operator(target: Any, name: str) -> Callable[..., Any]:
    plain, aten = _PLAIN.fullmatch(target), _ATEN.fullmatch(target)
    if plain:
        found: Callable[..., Any] = getattr(operator, plain[1])
        return found
    within = aten is not None and not _BEYOND.fullmatch(aten[1])
    call = getattr(getattr(torch.ops.aten, aten[1], None), aten[2], None) if aten and within else None
    if not isinstance(call, OpOverload):
        raise BundleError(f"{name}: {MODEL} has target {target[:200]!r}, which a plain tensor program does not need")
    return call


def _argument(told: Any, used: set[str], name: str, device: torch.device) -> Any:
    """The argument that `told` stands for: a value, or the `Name` of one, which `used` then has."""

    def named(key: Any) -> Name:
        used.add(key)
        return Name(key)

    def symbol(each: Any) -> Any:
        ((kind, value),) = each.items()
        return named(value) if kind == "as_name" else _plain(value)

    ((kind, value),) = told.items()
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return named(value["name"])
    if kind == "as_tensors":
        return [named(each["name"]) for each in value]
    if kind == "as_optional_tensor":
        return _argument(value, used, name, device)
    if kind in ("as_optional_tensors", "as_nested_tensors"):
        return [_argument(each, used, name, device) for each in value]
    if kind in ("as_int", "as_bool", "as_string"):
        return _plain(value)
    if kind == "as_float":
        # Infinity is a word.
        return float(value)
    if kind in ("as_ints", "as_bools", "as_strings"):
        return [_plain(each) for each in value]
    if kind == "as_floats":
        return [float(each) for each in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return symbol(value)
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [symbol(each) for each in value]
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return _FORMATS[value]
    if kind == "as_layout":
        return _LAYOUTS[value]
    if kind == "as_device":
        return device
    raise BundleError(f"{name}: {MODEL} has {kind} {str(value)[:200]!r}, which a plain tensor program does not need")


def _plain(value: Any) -> Any:
    if not isinstance(value, (int, float, str)):
        raise TypeError(f"got {str(value)[:100]}, expected a number or a word")
    return value


def _results(outputs: Any) -> tuple[list[str], bool]:
    """Names of an operator's results, and whether it gives several."""
    names = []
    several = len(outputs) != 1
    for told in outputs:
        ((kind, value),) = told.items()
        if kind == "as_tensor":
            names.append(value["name"])
        elif kind == "as_tensors":
            several = True
            names += [each["name"] for each in value]
        elif kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            names.append(value["as_name"])
        else:
            raise ValueError(f"a result of kind {kind}")
    return names, several and bool(outputs)


def _batch_bounds(feature: Any, constraints: Any, name: str) -> tuple[int, int]:
    """Smallest and largest batch; batch norm over single values needs 2, and aten does not check that."""
    batch = feature["sizes"][0]
    if "as_int" in batch:
        raise BundleError(f"{name} takes batches of exactly {batch['as_int']} images: export it with a dynamic batch")
    symbol = _SYMBOL.fullmatch(batch["as_expr"]["expr_str"])
    if symbol is None:
        raise BundleError(
            f"{name}: {MODEL} has expr_str {batch['as_expr']['expr_str'][:200]!r} for the batch, expected a symbol"
        )
    bounds = constraints[symbol[1]]
    low, high = bounds["min_val"], bounds["max_val"]
    return int(low or 0), min(int(_MOST if high is None else high), _MOST)
