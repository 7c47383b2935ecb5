"""CloudEvents in structured mode: the whole event is the record's value.

Source: CloudEvents Kafka protocol binding 1.0.2, section 3.3, and JSON event format 1.0.2, section 3.
"""

from collections.abc import Mapping
from typing import Any

import orjson

__all__ = ["STRUCTURED", "is_structured", "open_structured"]

STRUCTURED = b"application/cloudevents+json"


def is_structured(content_type: bytes | None) -> bool:
    """Whether a ``content-type`` header says structured mode; parameters such as a charset are allowed."""
    return content_type is not None and content_type.split(b";", 1)[0].strip().lower() == STRUCTURED


def open_structured(value: bytes, headers: Mapping[str, Any]) -> tuple[dict[str, Any], bytes] | str:
    """The headers as binary mode would have them, and the payload; or what is wrong.

    Headers that are no CloudEvents attributes, ``pf-context`` among them, stay Kafka headers in both modes. Attributes may be
    repeated as headers (section 3.3.3); the event's own are believed. One that is ``null`` counts as left out.
    """
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return f"the value is no JSON: {error}"
    if not isinstance(event, dict):
        return "the value is no JSON object"
    if "data" not in event:
        return "the event has no data"
    opened = {name: raw for name, raw in headers.items() if not name.startswith("ce_") and name != "content-type"}
    for name, attribute in event.items():
        match attribute:
            case _ if name == "data":
                pass
            case None:
                pass
            case str():
                opened[f"ce_{name}"] = attribute.encode()
            case bool() | int():
                opened[f"ce_{name}"] = orjson.dumps(attribute)
            case _:
                return f"attribute {name!r} is no string, number or truth value"
    opened["content-type"] = b"application/json"
    try:
        return opened, orjson.dumps(event["data"])
    except orjson.JSONEncodeError as error:  # it is nested deeper than orjson writes
        return f"the data cannot be read: {error}"
