"""The description of the live socket (AsyncAPI 3.0), put together from the very frames that it sends and reads.

Owns the table of what may travel in each direction. That the socket keeps to it is for the tests to say.
"""

from collections.abc import Mapping

from app.domain.errors import DuplicateIdempotencyKey, Unauthorized, Unavailable
from app.specs.openapi import CONTRACT_VERSION
from app.wire import frames
from app.wire.client_frames import CLIENT_FRAMES
from app.wire.commands import COMMANDS, CommandSpec, Refusals
from app.wire.requests import IDENTIFIER_PATTERN
from app.wire.schemas import Schema, components, reference
from app.wire.websocket import CloseCode

SERVER_FRAMES: Mapping[str, tuple[type, str]] = {
    "welcome": (frames.Welcome, "Who the connection speaks for: the first frame, and again after `auth`."),
    "snapshot": (frames.Snapshot, "The room as it is, in place of everything the client had."),
    "update": (frames.Update, "What led from one version to the next: events whose items replace those with their id."),
    "position": (frames.Position, "Private to the owner: where their item is now."),
    "notice": (frames.Notice, "Private to the owner: the item has reached a milestone. Once an item and milestone."),
    "ack": (frames.Ack, "A command was done."),
    "error": (frames.ErrorFrame, "A frame was refused; nothing was done."),
    "pong": (frames.Pong, "The answer to `ping`."),
}

DESCRIPTION = """\
A connection begins as an anonymous viewer; the Authorization header or an `auth` frame makes it an owner's, a
performer's or an administrator's. A client holds the version of its room: an update whose `from` is that version
applies, one whose `version` is not above it is dropped, anything else calls for `resync`. Applying every update to a
snapshot gives exactly a fresh snapshot."""


def document() -> Schema:
    """The AsyncAPI document."""
    by_anybody = [name for name in CLIENT_FRAMES if name not in COMMANDS]
    messages = {**_server_messages(), **_client_messages()}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Performance Queue, live", "version": CONTRACT_VERSION, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": {"live": _channel(messages)},
        "operations": {
            "tell": _operation("send", "What the service sends by itself", [*SERVER_FRAMES]),
            "ask": _operation("receive", "What every client may send", by_anybody),
            "command": {
                **_operation("receive", "What the performer's side and administrators may send", [*COMMANDS]),
                "reply": {"channel": _CHANNEL, "messages": _messages(["ack", "error"])},
            },
        },
        "components": {"messages": messages, "schemas": _schemas()},
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
                        "epoch": {"type": "string", "description": "The history the client's version is of."},
                        "since": {"type": "integer", "minimum": 0, "description": "The version it has."},
                    },
                },
                "headers": {"type": "object", "properties": {"Authorization": {"type": "string"}}},
                "bindingVersion": "0.1.0",
            }
        },
        "x-subprotocol": frames.SUBPROTOCOL,
        "x-close-codes": {str(code.value): code.meaning for code in CloseCode},
    }


def _operation(action: str, summary: str, names: list[str]) -> Schema:
    return {"action": action, "channel": _CHANNEL, "summary": summary, "messages": _messages(names)}


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
            "summary": _command_summary(COMMANDS[name]) if name in COMMANDS else (frame.__doc__ or ""),
            "payload": reference(frame),
        }
        for name, frame in CLIENT_FRAMES.items()
    }


def _command_summary(spec: CommandSpec) -> str:
    """Its refusals are those of HTTP; what comes before a body is read has no place here."""
    refusals: Refusals = (Unauthorized, Unavailable, DuplicateIdempotencyKey, *spec.refuses)
    codes = ", ".join(f"`{code}`" for code in dict.fromkeys(refusal.code for refusal in refusals))
    return f"{spec.summary}. For {spec.who}. Refused with {codes}."


def _schemas() -> dict[str, Schema]:
    shapes = [frame for frame, _ in SERVER_FRAMES.values()]
    return components(answers=shapes, requests=CLIENT_FRAMES.values())
