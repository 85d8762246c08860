"""The parameters in a request's path, query and headers; a wrong one raises InvalidRequest with its name."""

from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from app.domain.errors import FieldError, InvalidRequest, PerformerNotFound
from app.specs.openapi import EVENT_STREAM
from app.wire.paging import DEEPEST_SKIP, DEFAULT_LIMIT, LARGEST_LIMIT, LONGEST_SEARCH, MOST_PERFORMERS
from app.wire.requests import is_identifier

DEFAULT_SPAN = timedelta(days=1)
LONGEST_SPAN = timedelta(days=31)


def performer_id_of(request: Request) -> str:
    performer_id: str = request.path_params["performerId"]
    if not is_identifier(performer_id):
        raise PerformerNotFound("There is no such performer.")
    return performer_id


def performer_ids_of(request: Request) -> list[str]:
    """The performers that a query names; an empty list if it names none."""
    performer_ids = request.query_params.getlist("performerId")
    if len(performer_ids) > MOST_PERFORMERS:
        raise bad_parameter("performerId", f"may be there at most {MOST_PERFORMERS} times")
    if not all(is_identifier(performer_id) for performer_id in performer_ids):
        raise bad_parameter("performerId", "must be a performer's id")
    return performer_ids


def idempotency_key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 255:
        raise bad_parameter("Idempotency-Key", "must be 1 to 255 characters")
    return key


def source_feature_of(request: Request) -> str | None:
    """The feature that a query names; None if it names none."""
    feature = request.query_params.get("sourceFeature")
    if feature is not None and not (1 <= len(feature) <= 64 and "\0" not in feature):
        raise bad_parameter("sourceFeature", "must be 1 to 64 characters")
    return feature


def wants_stream(request: Request) -> bool:
    """Whether the caller asks for a stream: by the name of its media type, for which `*/*` does not stand."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in request.headers.get("accept", "").split(",")]
    return EVENT_STREAM in kinds and request.method == "GET"


def search_words_of(request: Request) -> str:
    words = request.query_params.get("q", "").strip()
    if not 1 <= len(words) <= LONGEST_SEARCH or "\0" in words:
        raise bad_parameter("q", f"must be 1 to {LONGEST_SEARCH} characters")
    return words


def paging_of(request: Request) -> tuple[int, int]:
    """The parameters `limit` and `skip`."""
    limit = whole_number(request, "limit", DEFAULT_LIMIT, 1, LARGEST_LIMIT)
    return limit, whole_number(request, "skip", 0, 0, DEEPEST_SKIP)


def whole_number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A parameter that is an integer from `least` to `most`; `default` if it is not there."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16 and least <= int(text) <= most):
        raise bad_parameter(name, f"must be a whole number from {least} to {most}")
    return int(text)


def instant_of(request: Request, name: str) -> datetime | None:
    """A parameter that is a time, in UTC unless it names an offset; None if it is not there."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_parameter(name, "must be a time such as 2026-01-31T12:00:00.000Z") from None


def span_of(request: Request, now: datetime) -> tuple[datetime, datetime]:
    """The parameters `from` and `to`. By default `to` is now, and `from` a day before `to`."""
    end = instant_of(request, "to") or now
    start = instant_of(request, "from") or end - DEFAULT_SPAN
    if not start < end <= start + LONGEST_SPAN:
        raise bad_parameter("from", f"must be before to, by at most {LONGEST_SPAN.days} days")
    return start, end


def bad_parameter(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {message}.", errors=[FieldError(name, message)])
