"""The shapes of the live socket as TypeScript declarations, made from the AsyncAPI document.

The hand-written declarations of `static/v1/` import them. A schema without an exact TypeScript type is refused, because
users would rely on a guessed type.
"""

import json
from collections.abc import Iterable

from app.specs import asyncapi
from app.wire.schemas import Schema

_HEAD = """\
// The shapes of the Performance Queue's live socket, generated from its AsyncAPI document.

/** RFC 3339, UTC, with milliseconds: 2026-01-31T12:00:00.000Z */
export type DateTime = string;
"""

_PRIMITIVES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def declarations() -> str:
    """The module `protocol.d.ts`. Raises ValueError for a schema without an exact TypeScript type."""
    document = asyncapi.document()
    components = document["components"]
    parts = [_HEAD, *(_declared(name, schema) for name, schema in components["schemas"].items())]
    for union, operations, meaning in (
        ("ServerFrame", ("send",), "Every frame that the service sends."),
        ("ClientFrame", ("receive", "command"), "Every frame that a client sends."),
        ("Command", ("command",), "The commands of a client; each is answered by `ack` or `error` with its `id`."),
    ):
        names = (_name(each) for operation in operations for each in document["operations"][operation]["messages"])
        payloads = (components["messages"][name]["payload"] for name in names)
        parts.append(f"{_comment(meaning)}export type {union} = {_joined(_kind(payload) for payload in payloads)};\n")
    return "\n".join(parts)


def _declared(name: str, schema: Schema) -> str:
    comment = _comment(schema.get("description"))
    if "properties" not in schema:
        return f"{comment}export type {name} = {_kind(schema)};\n"
    required = schema.get("required", ())
    fields = "".join(
        f"{_comment(field.get('description'), '  ')}  {key}{'' if key in required else '?'}: {_kind(field)};\n"
        for key, field in schema["properties"].items()
    )
    return f"{comment}export interface {name} {{\n{fields}}}\n"


def _kind(schema: Schema) -> str:
    """The type expression of a schema."""
    match schema:
        case {"$ref": _}:
            return _name(schema)
        case {"allOf": [whole]}:
            return _kind(whole)
        case {"anyOf": kinds}:
            return _joined(map(_kind, kinds))
        case {"const": value}:
            return json.dumps(value)
        case {"enum": values}:
            return _joined(map(json.dumps, values))
        case {"type": "array", "items": items}:
            kind = _kind(items)
            return f"({kind})[]" if " | " in kind else f"{kind}[]"
        case {"type": "object", "additionalProperties": True}:
            return "Record<string, unknown>"
        case {"type": "string", "format": "date-time"}:
            return "DateTime"
        case {"type": str(primitive)} if primitive in _PRIMITIVES:
            return _PRIMITIVES[primitive]
    raise ValueError(f"there is no TypeScript for {schema}")


def _joined(kinds: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(kinds))


def _name(reference: Schema) -> str:
    name: str = reference["$ref"].rpartition("/")[2]
    return name


def _comment(text: str | None, indent: str = "") -> str:
    return f"{indent}/** {' '.join(text.split())} */\n" if text else ""
