"""Values to JSON and back, so that what is written can be read."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple

from pydantic import ConfigDict, TypeAdapter

__all__ = ["CONFIG", "Codec", "codec", "is_frozen"]

CONFIG: Final = ConfigDict(ser_json_inf_nan="strings", ser_json_bytes="base64", val_json_bytes="base64")
"""One configuration for both directions: infinity, NaN and bytes have no JSON form of their own."""

_CONSTRAINTS = frozenset(
    {"ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern", "max_digits", "decimal_places"}
)
_FROZEN = frozenset(
    {
        "bool",
        "bytes",
        "date",
        "datetime",
        "decimal",
        "enum",
        "float",
        "int",
        "literal",
        "none",
        "str",
        "time",
        "timedelta",
        "uuid",
    }
)


class Codec(NamedTuple):
    """How values of a type are written and read."""

    encode: Callable[[Any], bytes]
    """Value to JSON bytes; warns (``UserWarning``) if a part of it has a wrong type, which :func:`~.state.strictly` makes an
    error, and raises ``ValueError`` if it breaks a constraint of its type, such as ``Field(ge=0)``."""
    decode: Callable[[bytes], Any]
    """JSON bytes to value; raises ``pydantic.ValidationError``."""


def codec(adapter: TypeAdapter[Any]) -> Codec:
    """The encoder of a type never writes what could not be read again, which would stop the lane for good."""
    write, read = adapter.serializer.to_json, adapter.validator.validate_json
    sure = not _refuses_more(adapter.core_schema)
    nones = _nones(adapter.core_schema)

    def encode(value: Any) -> bytes:
        raw = write(value)
        # pydantic writes None for a value of any type, and warns of other wrong types only.
        if not sure or raw.count(b"null") != nones(value):
            read(raw)
        return raw

    return Codec(encode, read)


def _nones(schema: Mapping[str, Any]) -> Callable[[Any], int]:
    """What counts the ``None`` that values of this core schema may have and do have, those deeper inside left out."""
    if schema["type"] not in {"dataclass", "model"}:
        return lambda _: 0
    fields = schema["schema"].get("fields", ())
    if isinstance(fields, list):
        fields = {field["name"]: field for field in fields}
    names = [name for name, field in fields.items() if _is_nullable(field["schema"])]
    if not names:
        return lambda _: 0
    get = attrgetter(*names)
    if len(names) == 1:
        return lambda value: get(value) is None
    return lambda value: sum([one is None for one in get(value)])


def _is_nullable(schema: Mapping[str, Any]) -> bool:
    return schema["type"] == "nullable" or (schema["type"] == "default" and _is_nullable(schema["schema"]))


def _refuses_more(schema: object) -> bool:
    """Whether reading may refuse a value of the right type: pydantic checks constraints there, not when it writes."""
    if isinstance(schema, dict):
        if _CONSTRAINTS & schema.keys() or str(schema.get("type")).startswith("function"):
            return True
        return any(_refuses_more(part) for name, part in schema.items() if name not in {"default", "metadata"})
    return isinstance(schema, list | tuple) and any(map(_refuses_more, schema))


def is_frozen(schema: Mapping[str, Any]) -> bool:
    """Whether a value of this core schema cannot be changed in place; ``False`` also where that is not plain."""
    kind = schema["type"]
    if kind in _FROZEN:
        return True
    if kind in {"default", "nullable"}:
        return is_frozen(schema["schema"])
    if kind == "tuple":
        return all(map(is_frozen, schema["items_schema"]))
    if kind == "union":
        return all(is_frozen(choice[0] if isinstance(choice, tuple) else choice) for choice in schema["choices"])
    if kind == "dataclass":
        fields = schema["schema"].get("fields", ())
        return schema["cls"].__dataclass_params__.frozen and all(is_frozen(field["schema"]) for field in fields)
    if kind == "model":
        config = schema["cls"].model_config
        fields = schema["schema"].get("fields", {}).values()
        return (
            config.get("frozen", False)
            and config.get("extra") != "allow"
            and schema["schema"]["type"] == "model-fields"
            and all(is_frozen(field["schema"]) for field in fields)
        )
    return False
