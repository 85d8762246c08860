"""Between bytes and JSON values: strict on the way in, one spelling of times on the way out."""

import json
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from app.domain.errors import InvalidRequest

DEEPEST_NESTING = 32


def encode(value: Any) -> bytes:
    """UTF-8 JSON. Times are RFC 3339 UTC with milliseconds."""
    return orjson.dumps(value, default=_other, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _other(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


# Saves 27 % of the CPU that reads a queue of 50 items (`bench --without instants`).
@lru_cache(maxsize=4096)
def instant(value: datetime) -> str:
    """RFC 3339 with milliseconds, as the contract writes times; `value` is in UTC."""
    return value.isoformat(timespec="milliseconds")[: -len("+00:00")] + "Z"


def decode(body: bytes | str) -> Any:
    """Strict JSON: valid UTF-8, no NaN, no lone surrogates, no duplicate keys, bounded nesting.

    Raises InvalidRequest. orjson accepts duplicate keys, so the standard parser looks for these; the standard parser
    accepts NaN and lone surrogates, which orjson refuses.
    """
    try:
        value = orjson.loads(body)
        depth, keys = _measure(value)
        # A key has a colon: where there are no more colons than keys, no key stands twice. Saves 4 % of the CPU that
        # answers an intake, without its commit (`bench --without colons`).
        if depth <= DEEPEST_NESTING and keys < (body.count(":") if isinstance(body, str) else body.count(b":")):
            _WITHOUT_DUPLICATES.decode(body if isinstance(body, str) else body.decode())
    except _DuplicateKeyError as error:
        raise InvalidRequest(f"The key {error.args[0]!r} stands twice in one JSON object.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.") from None
    if depth > DEEPEST_NESTING:
        raise InvalidRequest(f"The JSON is nested more than {DEEPEST_NESTING} levels deep.")
    return value


class _DuplicateKeyError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise _DuplicateKeyError(key)
        unique[key] = value
    return unique


_WITHOUT_DUPLICATES = json.JSONDecoder(object_pairs_hook=_unique)


def _measure(value: Any) -> tuple[int, int]:
    """The depth of nested objects and arrays, and the number of keys in them; found without recursion and no further
    than one level beyond DEEPEST_NESTING."""
    depth, keys, level = 0, 0, [value]
    while depth <= DEEPEST_NESTING and (level := [item for item in level if isinstance(item, (dict, list))]):
        depth += 1
        keys += sum(len(item) for item in level if isinstance(item, dict))
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth, keys


def fingerprint(*parts: Any) -> str:
    """A digest that is equal for equal JSON values, whatever the order of their keys."""
    canonical = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return blake2b(canonical, digest_size=16).hexdigest()
