"""Intents made up from their JSON Schema, for measuring and for trying things out.

What the schema gives as ``examples`` is used first, of the type or of a field. Everything else is made up: keys differ from
each other, other texts and numbers take ten values.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from pydantic import ValidationError

from pf_stream.errors import PFError
from pf_stream.model import Intent, IntentSpec

__all__ = ["NoSpecimenError", "Specimens"]

VARIETY: Final = 10
"""How many values a field takes that is no key."""
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class NoSpecimenError(PFError):
    """Raised when an intent cannot be made up; names the fields that came out wrong."""

    code = "no_specimen"

    def __init__(self, spec: IntentSpec, error: ValidationError) -> None:
        faults = "".join(f"\n  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        super().__init__(
            f"no {spec.type} can be made up from its JSON Schema:{faults}\n"
            f"Give examples (Field(examples=[...])) of these fields, or a file of intents"
        )


class Specimens:
    """Intents of one type."""

    def __init__(self, spec: IntentSpec, keys: int) -> None:
        """Their keys take so many values."""
        self._spec = spec
        self._keys = keys
        self._schema = spec.model.model_json_schema(mode="validation")

    def make(self, number: int) -> Intent:
        """The intent of that number; equal numbers give equal intents.

        Raises:
            NoSpecimenError: the schema does not say enough.
        """
        made = self._of(self._schema, self._spec.name, number)
        try:
            return self._spec.decode(orjson.dumps(made))
        except ValidationError as error:
            raise NoSpecimenError(self._spec, error) from None

    def _of(self, schema: Mapping[str, Any], name: str, number: int) -> Any:
        if "$ref" in schema:
            return self._of(self._schema["$defs"][schema["$ref"].rpartition("/")[2]], name, number)
        for known in ("examples", "enum"):
            if schema.get(known):
                return schema[known][number % len(schema[known])]
        if "const" in schema:
            return schema["const"]
        for several in ("anyOf", "oneOf"):
            if several in schema:
                some = [one for one in schema[several] if one.get("type") != "null"]
                return self._of(some[0], name, number) if some else None
        if "allOf" in schema:
            return self._of(schema["allOf"][0], name, number)
        match schema.get("type"):
            case "object":
                required = schema.get("required", ())
                return {
                    field: self._of(of, field, self._number(field, number))
                    for field, of in schema.get("properties", {}).items()
                    if field in required or of.get("examples") or (schema is self._schema and self._is_key(field))
                }
            case "array":
                fewest = schema.get("minItems", 0)
                return [self._of(schema.get("items", {}), name, number + at) for at in range(fewest)]
            case "string":
                return _text(schema, name, number)
            case "integer":
                return _whole(schema, number)
            case "number":
                return float(_whole(schema, number))
            case "boolean":
                return number % 2 == 0
            case _:
                return None

    def _number(self, field: str, number: int) -> int:
        return number % self._keys if self._is_key(field) else number % VARIETY

    def _is_key(self, field: str) -> bool:
        return field in self._spec.key_fields


def _text(schema: Mapping[str, Any], name: str, number: int) -> str:
    moment = EPOCH + timedelta(days=number)
    match schema.get("format"):
        case "date-time":
            return moment.isoformat()
        case "date":
            return moment.date().isoformat()
        case "time":
            return "12:00:00"
        case "duration":
            return f"PT{number + 1}S"
        case "uuid":
            return f"00000000-0000-4000-8000-{number:012x}"
        case _:
            text = f"{name}-{number}".ljust(schema.get("minLength", 0), "x")
            return text[-schema["maxLength"] :] if "maxLength" in schema else text


def _whole(schema: Mapping[str, Any], number: int) -> int:
    """An integer within the bounds of a schema, which may be fractions."""
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is None:
        least = 0 if most is None or most > 0 else most - VARIETY
    first = int(least) + (1 if schema.get("exclusiveMinimum") is not None or int(least) < least else 0)
    if most is None:
        return first + number
    last = int(most) - (1 if schema.get("exclusiveMaximum") is not None and int(most) == most else 0)
    return first + number % max(1, last - first + 1)
