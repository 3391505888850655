"""Checks a bundle: its golden data are computed again, and its graphs held to the rules of its board.

=========  =======  =======  ======================================================================================
check      float32  float16  why
=========  =======  =======  ======================================================================================
codes      99.9 %   99 %     equal ones. Rounding moves a stripe over the border of two codewords that are equally near:
                             0 to 1 in 10^4 stripes in float32, 1 in 10^3 where scores are float16, as measured. A
                             device refuses below 99 % (`runtime.golden.GOLDEN_SHARE`). One code may always differ: in a
                             small bundle that alone is more than the share.
feature    0.032    0.1      relative L2 error of the decoded feature: the root of the codes' share, which is as if
                             every code that may differ decoded to zero.
gradient   0.05     0.05     relative L2 error of the worst weight; on every board in float32, for the graphs that
                             learn run on its CPU. Rounding alone gave 1e-6 to 6e-4 between two engines, a ReLU within
                             rounding of zero, on in one and off in the other, up to 0.015; a wrong kernel gives 0.1 and
                             more. Where a gradient vanishes, see `report.VANISHED`.
reference  99.9 %   99.9 %   equal codes of onnx's reference evaluator and of ONNX Runtime, both in float32.
=========  =======  =======  ======================================================================================
"""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.device_profiles.profile import Profile
from edgekit.device_profiles.registry import PROFILES, from_json, profile
from edgekit.errors import BundleError, ExportError, PayloadError
from edgekit.export.encoders.registry import ENCODERS
from edgekit.export.parity.golden import GOLDEN_BACKEND, rerun, run_graph
from edgekit.export.parity.half_scores import relative, simulate
from edgekit.export.parity.report import Check, Report, equal_codes, small_error, worst_gradient
from edgekit.export.targets.check import check, check_range

#: Smallest share of equal codes, by precision.
CODES = {"float32": 0.999, "float16": 0.99}
#: Backends that compute in float32 whatever the board does.
FLOAT32_BACKENDS = ("onnxruntime", "reference")

ANOTHER_ENGINE = (
    "this engine computes something else than the one the bundle was exported with; try --backend reference, and if "
    "that fails too export the bundle again"
)
EXPORT_AGAIN = "export the bundle again, with this version of edgekit"


def check_bundle(
    bundle: Bundle,
    backend_id: str = GOLDEN_BACKEND,
    *,
    reference: bool = True,
    progress: Callable[[str], None] = lambda step: None,
) -> Report:
    """Reruns the golden data of `bundle` on a backend, and holds its graphs to the rules of its board.

    With `reference`, onnx's own evaluator runs the deployed graph too, on one image: tenths of a second at 32 pixels,
    seconds at 224. `progress` is told every step. Differences are in the report; BackendError when the backend
    is missing or cannot run the graphs, BundleError when the bundle is incomplete.
    """
    board, notes = board_of(bundle)
    precision = "float32" if backend_id in FLOAT32_BACKENDS else board.target.precision
    tables, spec = bundle.tables(), bundle.graphs["front"]
    progress(f"golden data on {backend_id}")
    golden, again = rerun(bundle, backend_id)
    progress("onnx.checker and the board's rules")
    checks = [
        *_well_formed(bundle),
        _rules(bundle, board, ENCODERS[bundle.codec.codec_id].largest(bundle.codec, again["feature"], tables)),
        *_parity(bundle, golden, again, tables, CODES[precision]),
    ]
    progress("float16 scores")
    half = simulate(bundle.read(spec.file), spec, bundle.codec, tables, bundle.feature_shape, golden["image"])
    if reference:
        progress("onnx's reference evaluator on one image")
        checks += _reference(bundle, tables, golden["image"][:1])
    described = (bundle.path, bundle.digest, bundle.model, bundle.cut, board.name, backend_id, precision)
    return Report(*described, checks, notes, half)


def board_of(bundle: Bundle) -> tuple[Profile, list[str]]:
    """The profile in the manifest, and notes on how it differs from the installed profile of that name."""
    try:
        board = from_json(bundle.device)
    except ValueError as error:
        raise BundleError(f"{bundle.path}: the manifest describes no board: {error}: {EXPORT_AGAIN}") from None
    if board.name not in PROFILES:
        return board, [f"'{board.name}' is no built-in board: judged by the profile in the bundle"]
    installed = profile(board.name).to_json()
    changed = [key for key, value in installed.items() if bundle.device.get(key) != value]
    if not changed:
        return board, []
    return board, [
        f"the installed profile '{board.name}' differs from the one in the bundle in {', '.join(changed)}: judged by "
        "the bundle's; export it again to follow the installed one"
    ]


def _well_formed(bundle: Bundle) -> Iterator[Check]:
    for spec in bundle.graphs.values():
        told = "accepted"
        try:
            onnx.checker.check_model(bundle.read(spec.file), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            told = str(error)
        yield Check(f"onnx.checker, {spec.file}", told == "accepted", told, "accepted", EXPORT_AGAIN)


def _rules(bundle: Bundle, board: Profile, largest_score: float) -> Check:
    spec = bundle.graphs["front"]
    replaceable = [constant.name for constant in spec.constants]
    try:
        refusals = check(onnx.load_from_string(bundle.read(spec.file)), board, {}, replaceable)
        too_large = check_range(largest_score, board)
        broken = [str(refusal) for refusal in [*refusals, *([too_large] if too_large else [])]]
    except ExportError as error:
        broken = [str(error)]
    told = "; ".join(broken) or "none broken"
    return Check(f"rules of {board.name}", not broken, told, "none broken", EXPORT_AGAIN, len(broken), 0)


def _parity(bundle: Bundle, golden: Arrays, again: Arrays, tables: Arrays, share: float) -> Iterator[Check]:
    names = [spec.name for spec in bundle.graphs["front"].outputs]
    shape = (len(golden["image"]), *bundle.feature_shape)
    for graph in ("deployed", "training"):
        for name in names:
            key = f"{graph}.{name}"
            yield equal_codes(f"{graph} {name}", again[key], golden[key], share, ANOTHER_ENGINE)
        title, decoded = f"{graph} feature, decoded", []
        try:
            for arrays in (golden, again):
                # As the server decodes them: unpacking refuses what is no code.
                payload = bundle.codec.pack({name: arrays[f"{graph}.{name}"] for name in names})
                decoded.append(bundle.codec.dequantize(bundle.codec.unpack(payload, shape), tables))
        except PayloadError as error:
            yield Check(title, False, str(error), "codes that the server can decode", ANOTHER_ENGINE)
            continue
        limit = max(1 - share, 1 / golden[f"{graph}.codes"].size) ** 0.5
        yield small_error(title, relative(decoded[1] - decoded[0], decoded[0]), limit, ANOTHER_ENGINE)
    expected = {key: array for key, array in golden.items() if key.startswith("gradient.")}
    yield worst_gradient("gradient", again, expected, ANOTHER_ENGINE)
    local = {key: array for key, array in golden.items() if key.startswith("local.")}
    if local:
        yield worst_gradient("local loss and gradient", again, local, ANOTHER_ENGINE)


def _reference(bundle: Bundle, tables: Arrays, image: np.ndarray) -> Iterator[Check]:
    """Codes of onnx's reference evaluator beside those of ONNX Runtime, for one image.

    One even where the batch is static: the evaluator takes any, since no shape in our graphs fixes it.
    """
    spec = bundle.graphs["front"]
    model, held = bundle.read(spec.file), bundle.codec.table_feeds(tables)
    expected = run_graph(model, spec, held, {"image": image})
    names = [output.name for output in spec.outputs]
    try:
        feeds = {"image": image, **{each.name: held[each.name] for each in spec.held}}
        outputs = ReferenceEvaluator(onnx.load_from_string(model)).run(names, feeds)
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        yield Check("reference evaluator", False, f"{type(error).__name__}: {error}", "codes", EXPORT_AGAIN)
        return
    for name, got in zip(names, outputs, strict=True):
        yield equal_codes(f"reference {name}", np.asarray(got), expected[name], CODES["float32"], EXPORT_AGAIN)
