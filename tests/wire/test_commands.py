"""The table of commands, and the frames that are made from it."""

import inspect
from typing import Any

import pytest

from app.domain import command as do
from app.domain.errors import InvalidMode, InvalidRequest
from app.wire.client_frames import (
    AuthFrame,
    CommandFrame,
    ItemCommandFrame,
    PingFrame,
    ResyncFrame,
    UnknownFrame,
    read_frame,
)
from app.wire.commands import COMMANDS, CommandSpec
from app.wire.requests import read

ADA = do.Actor(role=do.Role.PERFORMER, id="ada")

BODIES: dict[str, dict[str, Any]] = {
    "start": {},
    "complete": {"refundTokens": 4},
    "abandon": {"reason": "technical_error"},
    "refund": {"reason": "admin_refund"},
    "pause": {},
    "resume": {},
    "start-next": {},
    "settings": {"mode": "off", "notifyPositions": [3, 1, 3], "announcement": "", "maxDepth": None},
}
each_command = pytest.mark.parametrize("spec", COMMANDS.values(), ids=COMMANDS.keys())


def frame_of(spec: CommandSpec) -> dict[str, Any]:
    item = {"itemId": "an-item"} if spec.is_about_item else {}
    return {"type": spec.name, "id": "my-id", **item, **BODIES[spec.name]}


@each_command
def test_the_fields_of_a_request_are_those_of_its_domain_command(spec: CommandSpec) -> None:
    fields = {"actor", *spec.request.model_fields} | ({"item_id"} if spec.is_about_item else set())
    assert set(inspect.signature(spec.becomes).parameters) == fields


@each_command
def test_a_frame_and_a_body_become_the_same_command_with_the_same_fingerprint(spec: CommandSpec) -> None:
    item_id = "an-item" if spec.is_about_item else None
    body, frame = read(spec.request, BODIES[spec.name]), read_frame(frame_of(spec))
    assert isinstance(frame, CommandFrame)
    assert (frame.type, frame.id) == (spec.name, "my-id")
    assert isinstance(frame, ItemCommandFrame) is spec.is_about_item
    assert frame.body() == body.body()
    assert spec.command(ADA, item_id, frame) == spec.command(ADA, item_id, body)


def test_settings_change_only_what_is_given() -> None:
    change = COMMANDS["settings"].command(ADA, None, read(COMMANDS["settings"].request, BODIES["settings"]))
    assert change == do.ChangeSettings(
        actor=ADA, mode=do.Mode.OFF, notify_positions=(3, 1), announcement=None, max_depth=None
    )


def test_frames_of_every_client_are_read() -> None:
    assert read_frame({"type": "auth", "token": "a.b.c"}) == AuthFrame(type="auth", token="a.b.c")
    assert read_frame({"type": "ping"}) == PingFrame(type="ping")
    assert read_frame({"type": "resync", "id": "1"}) == ResyncFrame(type="resync", id="1")


@pytest.mark.parametrize("value", [None, [], "ping", 1, {}, {"type": None}, {"type": []}, {"type": "stop"}])
def test_a_message_without_a_known_type_is_no_frame(value: Any) -> None:
    with pytest.raises(UnknownFrame):
        read_frame(value)


@each_command
@pytest.mark.parametrize("extra", ["surprise", "item_id", "token"])
def test_a_field_that_a_frame_does_not_have_is_refused_by_its_own_name(spec: CommandSpec, extra: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_frame({**frame_of(spec), extra: "x"})
    assert [error.field for error in refusal.value.errors] == [extra]


def test_a_wrong_mode_has_a_code_of_its_own_but_not_beside_another_mistake() -> None:
    wrong = {"type": "settings", "id": "1", "mode": "maybe"}
    with pytest.raises(InvalidMode):
        read_frame(wrong)
    with pytest.raises(InvalidRequest) as refusal:
        read_frame({**wrong, "maxDepth": 0})
    assert not isinstance(refusal.value, InvalidMode)
