"""JSON Schemas of a topology's intents, for clients in any language."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import orjson

from pf_stream.errors import ConfigurationError
from pf_stream.model import IntentSpec, Topology

__all__ = ["SchemaFile", "SchemaStatus", "compare_schemas", "json_schemas", "write_schemas"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class SchemaStatus(StrEnum):
    """How a file is, beside what the code says."""

    same = "same"
    changed = "changed"
    missing = "missing"


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """A file of a schema."""

    path: Path
    """Where it is."""
    status: SchemaStatus
    """How it is, or was before it was written."""


def json_schemas(topology: Topology) -> dict[str, bytes]:
    """The schema of each intent type by file name, ``{name}.v{version}.json``: equal code gives equal bytes."""
    return {f"{spec.type}.json": _schema(spec) for spec in topology.intents}


def compare_schemas(schemas: Mapping[str, bytes], folder: Path) -> list[SchemaFile]:
    """How the files in *folder* differ from *schemas*; other files there are not looked at."""
    return [SchemaFile(folder / name, _status(folder / name, content)) for name, content in sorted(schemas.items())]


def write_schemas(schemas: Mapping[str, bytes], folder: Path) -> list[SchemaFile]:
    """Write what is missing or has changed; returns how it was before.

    Raises:
        ConfigurationError: *folder* cannot be written to.
    """
    before = compare_schemas(schemas, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in before:
            if file.status is not SchemaStatus.same:
                file.path.write_bytes(schemas[file.path.name])
    except OSError as error:
        raise ConfigurationError(f"cannot write to {error.filename or folder}: {error.strerror}") from error
    return before


def _status(path: Path, content: bytes) -> SchemaStatus:
    try:
        found = path.read_bytes()
    except OSError:
        return SchemaStatus.missing
    return SchemaStatus.same if found == content else SchemaStatus.changed


def _schema(spec: IntentSpec) -> bytes:
    schema = spec.model.model_json_schema(mode="validation")
    schema |= {
        "$schema": DIALECT,
        "$id": f"urn:pf:intent:{spec.type}",
        "title": spec.type,
        "x-pf-key": list(spec.key_fields),
        "x-pf-requires": list(map(str, spec.requires)),
        "x-pf-also-accepts": list(spec.older_types),
    }
    if spec.event_time is not None:
        schema["x-pf-event-time"] = spec.event_time
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
