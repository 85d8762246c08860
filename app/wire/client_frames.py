"""The frames that a client may send over the live socket, as one discriminated union.

A command's frame is its request (`wire.commands`) with an envelope around it, so that a frame is validated once and by
the same bounds as the body of an HTTP request.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, cast

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, create_model

from app.wire.commands import COMMANDS, CommandSpec
from app.wire.requests import IDENTIFIER_PATTERN, Key, Request, invalid_request


class AuthFrame(Request):
    """Says who the client is, or refreshes its token."""

    type: Literal["auth"]
    token: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=8192)]


class PingFrame(Request):
    """Answered with `pong`; an `id` is tolerated."""

    type: Literal["ping"]
    id: Key | None = None


class ResyncFrame(Request):
    """Answered with a snapshot; an `id` is tolerated."""

    type: Literal["resync"]
    id: Key | None = None


class CommandFrame(Request):
    """A command and its envelope. `id` comes back in the answer and is the command's idempotency key."""

    envelope = frozenset({"type", "id", "item_id"})
    type: str
    id: Key


class ItemCommandFrame(CommandFrame):
    item_id: Annotated[str, Field(strict=True, json_schema_extra={"pattern": IDENTIFIER_PATTERN})]
    """Any text is valid here; one that is no item's id is refused as ITEM_NOT_FOUND."""


ClientFrame = AuthFrame | PingFrame | ResyncFrame | CommandFrame


def _frame_of(spec: CommandSpec) -> type[CommandFrame]:
    """The model of a command's frame: its request with the envelope around it."""
    name = "".join(word.capitalize() for word in spec.name.split("-")) + "Command"
    bases: Any = (ItemCommandFrame if spec.is_about_item else CommandFrame, spec.request)
    own_type: Any = Literal[spec.name]
    model: Any = create_model(name, __base__=bases, __doc__=f"{spec.summary}.", type=(own_type, ...))
    return cast(type[CommandFrame], model)


CLIENT_FRAMES: Mapping[str, type[ClientFrame]] = {
    "auth": AuthFrame,
    "ping": PingFrame,
    "resync": ResyncFrame,
    **{name: _frame_of(spec) for name, spec in COMMANDS.items()},
}
"""All frames that a client may send, by type."""

_UNION: Any = Union[tuple(CLIENT_FRAMES.values())]  # noqa: UP007 - its members are known at run time only
_ANY_FRAME: TypeAdapter[ClientFrame] = TypeAdapter(Annotated[_UNION, Field(discriminator="type")])


def is_command(value: Any) -> bool:
    """Whether the `type` of a decoded JSON value is a command's."""
    return isinstance(value, dict) and value.get("type") in [*COMMANDS]


class UnknownFrame(ValueError):
    """The value is no object, or its type is none of CLIENT_FRAMES."""


def read_frame(value: Any) -> ClientFrame:
    """A decoded JSON value as a frame. Raises UnknownFrame, InvalidRequest or InvalidMode."""
    try:
        return _ANY_FRAME.validate_python(value)
    except ValidationError as invalid:
        if not isinstance(value, dict) or value.get("type") not in [*CLIENT_FRAMES]:
            raise UnknownFrame from None
        raise invalid_request(invalid, skip=1) from None
