"""Board rules about a graph as a whole: versions, shapes, inputs, outputs, refitted initialisers."""

from collections.abc import Iterator

from edgekit.export.targets.board_rule import CUT, Fault, at, told
from edgekit.export.targets.view import View


def opset(view: View) -> Iterator[Fault]:
    """Faults unless the operator set is the target's, and the format (IR version) no newer than the target's."""
    target, again = view.target, "export again for this device"
    got = [entry.version for entry in view.model.opset_import if entry.domain == ""]
    if got != [target.opset]:
        yield Fault("", "", told(f"opset {', '.join(map(str, got)) or 'none'}", str(target.opset), again))
    if view.model.ir_version > target.ir_version:
        got_ir = f"IR version {view.model.ir_version}"
        yield Fault("", "", told(got_ir, f"at most {target.ir_version}", again))


def static_shapes(view: View) -> Iterator[Fault]:
    """Faults of tensors whose sizes are not all positive integers, except of those computed from such tensors."""
    if not view.target.static:
        return
    bad = {name for name in [*view.inputs, *view.producers] if not view.is_static(name)}
    for name in view.inputs:
        if name in bad:
            yield Fault(name, "input", _sizes(view, name, "export with a fixed batch and image size"))
    for node in view.nodes:
        if bad.isdisjoint(node.input):
            for name in node.output:
                if name in bad:
                    yield at(node, _sizes(view, name, CUT))


def _sizes(view: View, name: str, remedy: str) -> str:
    shape = ",".join(map(str, view.shapes[name])) if name in view.shapes else "?"
    return told(f"'{name}' of shape ({shape})", "every size a positive integer", remedy)


def float32_input(view: View) -> Iterator[Fault]:
    for name in view.inputs:
        dtype = view.types.get(name, "an unknown type")
        if dtype != "float32":
            yield Fault(name, "input", told(dtype, "float32", "convert on the host, before the graph"))


def int32_output(view: View) -> Iterator[Fault]:
    for name in view.outputs:
        dtype = view.types.get(name, "an unknown type")
        node = view.producers.get(name)
        if dtype in ("float32", "float16") or (dtype == "int32" and node is not None and node.op_type == "Cast"):
            continue
        got = f"output '{name}' in {dtype} from {node.op_type if node else 'no node'}"
        message = told(got, "float, or int32 from a Cast", "end with Cast(to=INT32)")
        yield at(node, message) if node else Fault(name, "output", message)


def refit_names(view: View) -> Iterator[Fault]:
    for name in sorted(view.replaceable):
        readers = view.readers.get(name, [])
        if name not in view.constants:
            yield Fault(name, "initialiser", told("no such initialiser", "one", "export again"))
        elif len(readers) != 1:
            by = " (" + ", ".join(at(node, "").name for node in readers) + ")" if readers else ""
            message = told(
                f"'{name}' read {len(readers)} times{by}", "once", "give each layer its own weights, or cut before both"
            )
            yield at(readers[-1], message) if readers else Fault(name, "initialiser", message)
