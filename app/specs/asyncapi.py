"""The AsyncAPI 3.0 document of the live socket, generated from the frames that the code sends and reads.

Owns the table of server frames; client frames come from `wire.client_frames`. Tests compare the socket with it.
"""

from collections.abc import Mapping

from app.domain.errors import DuplicateIdempotencyKey, Unauthorized, Unavailable
from app.specs.openapi import CONTRACT_VERSION, TOKENS
from app.wire import frames
from app.wire.client_frames import CLIENT_FRAMES
from app.wire.commands import COMMANDS, CommandSpec, Refusals
from app.wire.requests import IDENTIFIER_PATTERN
from app.wire.schemas import Schema, components, reference
from app.wire.websocket import CloseCode

SERVER_FRAMES: Mapping[str, tuple[type, str]] = {
    "welcome": (frames.Welcome, "The caller of the connection. Sent first, and again after `auth`."),
    "snapshot": (frames.Snapshot, "The room as it is now. It replaces the client's whole state."),
    "update": (frames.Update, "The events from one version to the next; their items replace those with the same id."),
    "position": (frames.Position, "Private to the owner: the position of their item."),
    "notice": (
        frames.Notice,
        "Private to the owner: the item has reached a milestone. Sent once per item and milestone.",
    ),
    "ack": (frames.Ack, "A command succeeded."),
    "error": (frames.ErrorFrame, "A frame was refused; nothing was done."),
    "pong": (frames.Pong, "The answer to `ping`."),
}

DESCRIPTION = """\
A connection begins as an anonymous viewer; the Authorization header, an offered subprotocol `bearer.TOKEN` or an `auth`
frame makes it an owner's, a performer's or an administrator's. A client holds the version of its room: an update whose
`from` is that version applies, one whose `version` is not above it is dropped, anything else calls for `resync`.
Applying every update to a snapshot gives exactly a fresh snapshot."""


def document() -> Schema:
    """The AsyncAPI document."""
    by_anybody = [name for name in CLIENT_FRAMES if name not in COMMANDS]
    messages = {**_server_messages(), **_client_messages()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Performance Queue, live",
            "version": CONTRACT_VERSION,
            "contact": CONTACT,
            "license": {"name": "MIT", "url": "https://spdx.org/licenses/MIT.html"},
            "description": DESCRIPTION,
            "tags": [{"name": "live", "description": "The live socket of a performer's room."}],
        },
        "servers": {"service": SERVER},
        "defaultContentType": "application/json",
        "channels": {"live": _channel(messages)},
        "operations": {
            "send": _operation(
                "send",
                "Frames of the service",
                "Sent by the service on its own or as the answer to a client's frame.",
                [*SERVER_FRAMES],
            ),
            "receive": _operation(
                "receive", "Frames of every client", "Any client may send them, with or without a token.", by_anybody
            ),
            "command": {
                **_operation(
                    "receive",
                    "Commands",
                    "The same rules and codes as over HTTP. A frame's `id` comes back in the `ack` or `error` and is "
                    "the command's idempotency key.",
                    [*COMMANDS],
                ),
                "reply": {"channel": _CHANNEL, "messages": _messages(["ack", "error"])},
            },
        },
        "components": {
            "messages": messages,
            "schemas": _schemas(),
            "securitySchemes": SECURITY,
        },
    }


HOST = "queue.example.com"
"""A placeholder (RFC 2606): this document does not know the operator's host."""

SERVER: Schema = {"host": HOST, "protocol": "wss", "description": "An example: the host that serves this document."}
CONTACT: Schema = {
    "name": "The operator of the service",
    "url": f"https://{HOST}/docs",
    "email": f"postmaster@{HOST}",
}

SECURITY: Mapping[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": TOKENS},
    "authFrame": {
        "type": "apiKey",
        "in": "password",
        "description": "The same token in an `auth` frame, at any time. Anonymous viewers of public rooms need none.",
    },
}

_CHANNEL = {"$ref": "#/channels/live"}


def _channel(messages: Mapping[str, Schema]) -> Schema:
    return {
        "address": "/v1/performers/{performerId}/queue/live",
        "title": "One performer's room",
        "parameters": {"performerId": {"description": f"The room; {IDENTIFIER_PATTERN}"}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "ws": {
                "method": "GET",
                "query": {
                    "type": "object",
                    "properties": {
                        "epoch": {"type": "string", "description": "The epoch of the client's version."},
                        "since": {"type": "integer", "minimum": 0, "description": "The client's version."},
                    },
                },
                "headers": {"type": "object", "properties": {"Authorization": {"type": "string"}}},
                "bindingVersion": "0.1.0",
            }
        },
        "x-subprotocol": frames.SUBPROTOCOL,
        "x-close-codes": {str(code.value): code.meaning for code in CloseCode},
    }


def _operation(action: str, summary: str, description: str, names: list[str]) -> Schema:
    return {
        "action": action,
        "channel": _CHANNEL,
        "summary": summary,
        "description": description,
        "messages": _messages(names),
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY],
    }


def _messages(names: list[str]) -> list[Schema]:
    return [{"$ref": f"#/channels/live/messages/{name}"} for name in names]


def _server_messages() -> dict[str, Schema]:
    return {
        name: {"name": name, "summary": summary, "payload": reference(frame)}
        for name, (frame, summary) in SERVER_FRAMES.items()
    }


def _client_messages() -> dict[str, Schema]:
    return {
        name: {
            "name": name,
            "summary": frame.__doc__ or "",
            **({"description": _description(COMMANDS[name])} if name in COMMANDS else {}),
            "payload": reference(frame),
        }
        for name, frame in CLIENT_FRAMES.items()
    }


def _description(spec: CommandSpec) -> str:
    """A command's callers and refusal codes: as over HTTP, without the codes for bodies that are too large."""
    refusals: Refusals = (Unauthorized, Unavailable, DuplicateIdempotencyKey, *spec.refuses)
    codes = ", ".join(f"`{code}`" for code in dict.fromkeys(refusal.code for refusal in refusals))
    return f"For {spec.who}. Refused with {codes}."


def _schemas() -> dict[str, Schema]:
    shapes = [frame for frame, _ in SERVER_FRAMES.values()]
    return components(answers=shapes, requests=CLIENT_FRAMES.values())
