"""The bodies of requests, as pydantic models: every bound of the contract, unknown fields refused.

Reading a request raises InvalidRequest (or InvalidMode) with one entry for each wrong field.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from app.domain.command import Actor, Intake, Mode
from app.domain.errors import FieldError, InvalidMode, InvalidRequest
from app.domain.event import EventName
from app.domain.item import Item, Reason
from app.domain.operation import Resolution
from app.domain.push import Language
from app.wire.encoding import decode

LARGEST_METADATA_BYTES = 8 * 1024
IDENTIFIER_PATTERN = r"^[A-Za-z0-9_.:-]{1,64}$"
"""The form of the id of a performer, a user, an item or an operation."""
LARGEST_INTEGER = 2**53 - 1
"""The largest integer every JSON reader keeps exactly (RFC 8259 section 6)."""
LONGEST_WAIT_SECONDS = 30 * 86400

# PostgreSQL cannot store NUL in a text, and nothing legible holds one.
NO_NUL = r"^[^\x00]*$"


_TEXT = StringConstraints(strict=True, min_length=1, pattern=NO_NUL)

Key = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=255, pattern=NO_NUL)]
Identifier = Annotated[str, StringConstraints(strict=True, pattern=IDENTIFIER_PATTERN)]


def _whole(value: Any) -> Any:
    """Makes 1.0 the integer 1, as JSON Schema does; the strict integer type refuses any other number or value."""
    return int(value) if isinstance(value, float) and value.is_integer() and value <= LARGEST_INTEGER else value


_WHOLE = BeforeValidator(_whole)
WholeNumber = Annotated[int, Field(strict=True, ge=1, le=LARGEST_INTEGER), _WHOLE]
Flag = Annotated[bool, Field(strict=True)]


def is_identifier(text: str) -> bool:
    """Whether `text` has the form of an id; any other text is refused without a look at the database."""
    return re.fullmatch(IDENTIFIER_PATTERN, text) is not None


class Request(BaseModel):
    """The body of a request. Fields have the contract's camelCase names; unknown ones are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, validate_by_alias=True, validate_by_name=False
    )
    envelope: ClassVar[frozenset[str]] = frozenset()
    """The attributes that belong to the socket frame around a request."""

    def arguments(self) -> dict[str, Any]:
        """The fields that the domain command takes, by attribute name."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in self.envelope}

    def body(self) -> dict[str, Any]:
        """The request as a JSON value, of which the fingerprint for its idempotency key is made."""
        return self.model_dump(mode="json", exclude=set(self.envelope))


class IntakeRequest(Request):
    """A paid request for a performer's queue."""

    idempotency_key: Key | None = Field(None, description="Or the Idempotency-Key header")
    source_feature: Annotated[str, _TEXT, Field(max_length=64)]
    source_event_id: Annotated[str, _TEXT, Field(max_length=128)]
    performer_id: Identifier
    user_id: Identifier
    escrow_transaction_id: Annotated[str, _TEXT, Field(max_length=128)]
    tokens: WholeNumber
    title: Annotated[str, _TEXT, Field(max_length=200)]
    description: Annotated[str, _TEXT, Field(max_length=2000)]
    duration_seconds: WholeNumber | None = None
    metadata: dict[str, Any] = Field(default_factory=dict, description="At most 8 KiB of JSON")
    queue_mode: Mode | None = None

    def command(self, actor: Actor, *, item_id: str, key: str, at: datetime) -> Intake:
        item = Item(
            item_id=item_id,
            performer_id=self.performer_id,
            user_id=self.user_id,
            source_feature=self.source_feature,
            source_event_id=self.source_event_id,
            escrow_transaction_id=self.escrow_transaction_id,
            idempotency_key=key,
            tokens=self.tokens,
            title=self.title,
            description=self.description,
            duration_seconds=self.duration_seconds,
            metadata=self.metadata,
            created_at=at,
            updated_at=at,
        )
        return Intake(actor=actor, item=item, queue_mode=self.queue_mode)


class EmptyRequest(Request):
    """The body of a command without arguments."""


class CompleteRequest(Request):
    refund_tokens: WholeNumber | None = Field(None, description="Splits the escrow: tokens that go back to the user")


class AbandonRequest(Request):
    reason: Reason = Field(Reason.PERFORMER_DECLINED, description="By default performer_declined")


class RefundRequest(Request):
    reason: Reason


class DisconnectRequest(Request):
    """The sockets to be closed, named by one of the two."""

    sub: Annotated[str, _TEXT, Field(max_length=64)] | None = Field(
        None, description="The sockets of this user, performer, moderator or administrator"
    )
    performer_id: Identifier | None = Field(None, description="All sockets in this performer's room")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.sub is None) == (self.performer_id is None):
            raise ValueError("name either sub or performerId")
        return self


class RetryOperationsRequest(Request):
    """The status of the wallet operations that are to be tried again."""

    status: Literal["dead"]


class WalletCheckRequest(Request):
    """The part of a comparison with the wallet that is to be made."""

    next: Annotated[str, _TEXT, Field(max_length=120)] | None = Field(
        None, description="The `next` of the part before; without it a new comparison begins"
    )


class ResolveRequest(Request):
    """The resolution of a wallet operation, and the reason for it."""

    resolution: Resolution
    reason: Annotated[str, _TEXT, Field(max_length=500)]


class WebhookRequest(Request):
    """The address that events are delivered to. Without `events`: all that the owner may see."""

    url: Annotated[str, _TEXT, Field(max_length=2000)]
    events: Annotated[list[EventName], Field(min_length=1, max_length=len(EventName))] | None = None
    rotate_secret: Flag = Field(False, description="Give an existing endpoint a new secret, shown in the answer")


class PushKeys(Request):
    """The `keys` of a browser's `PushSubscription`, in base64url."""

    p256dh: Annotated[str, _TEXT, Field(alias="p256dh", max_length=100)]
    auth: Annotated[str, _TEXT, Field(max_length=40)]


class PushSubscriptionRequest(Request):
    """A browser's `PushSubscription`, and the language of its notifications."""

    endpoint: Annotated[str, _TEXT, Field(max_length=1000)]
    keys: PushKeys
    language: Language = Language.EN


class SettingsRequest(Request):
    """Only the settings that are given change; null resets one to the service's default."""

    mode: Mode = Mode.ON
    accepting: Flag = True
    paused: Flag = False
    strict_fifo: Flag = False
    max_depth: WholeNumber | None = None
    max_per_user: Annotated[int, Field(strict=True, ge=1, le=1000), _WHOLE] | None = Field(
        None, description="Active items of one user; null: any number"
    )
    max_wait_seconds: Annotated[int, Field(strict=True, ge=1, le=LONGEST_WAIT_SECONDS), _WHOLE] | None = Field(
        None, description="No intake beyond this estimated wait; null: any wait"
    )
    notify_positions: (
        Annotated[list[Annotated[int, Field(strict=True, ge=1, le=1000), _WHOLE]], Field(max_length=10)] | None
    ) = None
    announcement: Annotated[str, StringConstraints(strict=True, max_length=280, pattern=NO_NUL)] | None = None

    def arguments(self) -> dict[str, Any]:
        """Only the settings that are given: the others keep their value."""
        given = {name: value for name, value in super().arguments().items() if name in self.model_fields_set}
        if given.get("notify_positions") is not None:
            given["notify_positions"] = tuple(dict.fromkeys(given["notify_positions"]))
        if given.get("announcement") == "":
            given["announcement"] = None
        return given

    def body(self) -> dict[str, Any]:
        """The settings that are given, as a JSON value."""
        return self.model_dump(mode="json", exclude=set(self.envelope), exclude_unset=True)


R = TypeVar("R", bound=Request)


def read(model: type[R], value: Any) -> R:
    """A JSON value as a request. Raises InvalidRequest, or InvalidMode where only the mode is wrong."""
    try:
        request = model.model_validate(value)
    except ValidationError as invalid:
        raise invalid_request(invalid) from None
    if isinstance(request, IntakeRequest) and len(orjson.dumps(request.metadata)) > LARGEST_METADATA_BYTES:
        problem = FieldError("metadata", f"must be at most {LARGEST_METADATA_BYTES} bytes of JSON")
        raise InvalidRequest("The request is not valid: metadata.", errors=[problem])
    return request


def invalid_request(invalid: ValidationError, *, skip: int = 0) -> InvalidRequest:
    """The refusal for pydantic's errors. `skip`: leading parts of each location that are no field of the caller's."""
    errors = [
        FieldError(".".join(map(str, problem["loc"][skip:])) or "body", problem["msg"])
        for problem in invalid.errors(include_url=False, include_input=False, include_context=False)
    ]
    if all(error.field in ("mode", "queueMode") for error in errors):
        return InvalidMode('The mode must be "on" or "off".', errors=errors)
    named = ", ".join(dict.fromkeys(error.field for error in errors))
    return InvalidRequest(f"The request is not valid: {named}.", errors=errors)


def read_body(model: type[R], body: bytes) -> R:
    """A request body; an empty one counts as `{}`."""
    value = decode(body) if body.strip() else {}
    if not isinstance(value, Mapping):
        raise InvalidRequest("The body must be a JSON object.")
    return read(model, value)
