"""The commands that a room takes from its callers: one table for HTTP, the socket, OpenAPI and AsyncAPI.

Each entry has its public name, the domain command that it becomes, the request that it reads, who may send it, and the
refusals it can meet. Nothing is decided here: rights are `access.rights`, the rules of a room are `domain.decision`.
Intake and the administrators' commands are not in the table: they exist over HTTP only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.domain import command as do
from app.domain.errors import (
    AlreadyProcessing,
    Forbidden,
    InvalidMode,
    InvalidRequest,
    InvalidTransition,
    ItemNotFound,
    OutOfOrder,
    PerformerNotFound,
    QueueEmpty,
    QueueError,
)
from app.wire.requests import (
    AbandonRequest,
    CompleteRequest,
    EmptyRequest,
    RefundRequest,
    Request,
    SettingsRequest,
)

Refusals = tuple[type[QueueError], ...]

ITEM_PATH = "/v1/queue/items/{itemId}"
ROOM_PATH = "/v1/performers/{performerId}/queue"


class Who(StrEnum):
    """The callers that may send a command, in the words of the API documents."""

    STAGE = "the performer, a moderator of the room, an administrator"
    STAGE_OR_OWNER = f"{STAGE}; the item's user while it waits, with the reason user_cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """One command. `path` and `method` are its HTTP endpoint, `name` its frame's type on the socket."""

    name: str
    operation: str
    """The operationId in OpenAPI."""
    summary: str
    becomes: Callable[..., do.Command]
    """The domain command's class; its fields are `actor`, for an item's command `item_id`, and those of the request."""
    request: type[Request] = EmptyRequest
    is_about_item: bool
    method: str = "POST"
    path: str
    who: Who = Who.STAGE
    refuses: Refusals
    """The errors that it can meet over HTTP and over the socket; each of the two adds its own."""

    def command(self, actor: do.Actor, item_id: str | None, request: Request) -> do.Command:
        """The domain command. `request` is of the class `self.request`; `item_id` is None for a room's command."""
        target = {"item_id": item_id} if self.is_about_item else {}
        return self.becomes(actor=actor, **target, **request.arguments())


_ANY: Refusals = (Forbidden, InvalidRequest)


def _about_item(
    name: str,
    becomes: Callable[..., do.Command],
    summary: str,
    *,
    request: type[Request] = EmptyRequest,
    who: Who = Who.STAGE,
    refuses: Refusals = (),
) -> CommandSpec:
    return CommandSpec(
        name=name,
        operation=name,
        summary=summary,
        becomes=becomes,
        request=request,
        is_about_item=True,
        path=f"{ITEM_PATH}/{name}",
        who=who,
        refuses=(*_ANY, ItemNotFound, InvalidTransition, *refuses),
    )


START_NEXT = CommandSpec(
    name="start-next",
    operation="start_next",
    summary="Start the head of the queue",
    becomes=do.StartNext,
    is_about_item=False,
    path=f"{ROOM_PATH}/start-next",
    refuses=(*_ANY, PerformerNotFound, QueueEmpty, AlreadyProcessing),
)
SETTINGS = CommandSpec(
    name="settings",
    operation="change_settings",
    summary="Change the room's settings",
    becomes=do.ChangeSettings,
    request=SettingsRequest,
    is_about_item=False,
    method="PATCH",
    path=ROOM_PATH,
    refuses=(*_ANY, InvalidMode, PerformerNotFound),
)
ITEM_COMMANDS: tuple[CommandSpec, ...] = (
    _about_item(
        "start",
        do.Start,
        "Start it: created → started",
        refuses=(AlreadyProcessing, OutOfOrder),
    ),
    _about_item(
        "complete",
        do.Complete,
        "Finish it, whole or split: started → finished",
        request=CompleteRequest,
    ),
    _about_item(
        "abandon",
        do.Abandon,
        "Give it up, the refund follows: created or started → abandoned",
        request=AbandonRequest,
    ),
    _about_item(
        "refund",
        do.Refund,
        "Refund it: anything whose settlement has not been sent → refunded",
        request=RefundRequest,
        who=Who.STAGE_OR_OWNER,
    ),
    _about_item("pause", do.Pause, "Stop the clock of a started item"),
    _about_item("resume", do.Resume, "Let the clock of a started item go on"),
)
COMMANDS: Mapping[str, CommandSpec] = {spec.name: spec for spec in (*ITEM_COMMANDS, START_NEXT, SETTINGS)}
"""All commands, by name."""
