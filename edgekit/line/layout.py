"""Layout: how the fields of a message's class lie in a frame, by their annotations."""

from typing import Any, Dict, List, Optional, Tuple, Type

from edgekit.errors import PayloadError
from edgekit.line.frame import HEAD_SIZE, Message

_PLAIN: Dict[Any, type] = {Optional[float]: float, Dict[str, Any]: dict, List[str]: list}


class Layout:
    """How one class lies in a frame: fields that are bytes are its parts, in order, the others are in its header.

    `keys`: field -> its key in the header where that is another; a dot leads into an inner object. `step` is the field
    that is the frame's step id.
    """

    def __init__(self, message: Type[Any], keys: Optional[Dict[str, str]] = None, step: str = "step") -> None:
        self.message = message
        self.step = step
        kinds: Dict[str, Any] = dict(message.__annotations__)
        #: The fields that are the frame's parts.
        self.parts = [name for name, kind in kinds.items() if kind is bytes]
        #: Field -> (key, type) of what is in the header. A field that has its default is left out there.
        self.header: Dict[str, Tuple[str, type]] = {}
        for name, kind in kinds.items():
            if name not in ("session", step, *self.parts):
                self.header[name] = ((keys or {}).get(name, name), _PLAIN.get(kind) or kind)

    def pack(self, kind: str, message: Any) -> Message:
        """`message`, which is of this class and of `kind`, as a frame has it."""
        header: Dict[str, Any] = {}
        defaults = self.message._field_defaults
        for name, (key, _) in self.header.items():
            value = getattr(message, name)
            if name not in defaults or value != defaults[name]:
                outer, _, inner = key.rpartition(".")
                (header.setdefault(outer, {}) if outer else header)[inner] = value
        parts = tuple(getattr(message, name) for name in self.parts)
        return Message(kind, getattr(message, "session", 0), getattr(message, self.step, 0), header, parts)

    def parse(self, message: Message) -> Any:
        """The message of a frame's content. PayloadError, naming the field, where a type is wrong."""
        if len(message.parts) != len(self.parts):
            told = "{} message has {} parts, expected {}"
            raise PayloadError(told.format(message.kind, len(message.parts), len(self.parts)), 5)
        values: Dict[str, Any] = dict(zip(self.parts, message.parts))
        for name, (key, kind) in self.header.items():
            outer, _, inner = key.rpartition(".")
            found = message.header.get(outer) if outer else message.header
            holder = found if isinstance(found, dict) else {}
            if inner in holder or name not in self.message._field_defaults:
                values[name] = _checked(message.kind, name, key, holder.get(inner), kind)
        ids = {"session": message.session, self.step: message.step}
        return self.message(**values, **{name: ids[name] for name in ids if name in self.message._fields})


def _checked(message: str, name: str, key: str, value: Any, kind: type) -> Any:
    """`value` as a `kind` (an int passes for a float, which must be finite); else PayloadError naming the field."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 1 << 53:
        value = float(value)
    finite = not isinstance(value, float) or abs(value) < float("inf")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or not finite:
        where = "'{}'".format(name) if name == key else "'{}' (header field '{}')".format(name, key)
        told = "{} message: {} is {!r}, expected {}"
        raise PayloadError(told.format(message, where, value, kind.__name__), HEAD_SIZE)
    return value
