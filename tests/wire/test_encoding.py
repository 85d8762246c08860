"""JSON in and out: `decode` accepts exactly the documents that every strict reader understands in the same way."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidRequest
from app.wire.encoding import DEEPEST_NESTING, decode, encode, fingerprint, instant

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_encoding_and_decoding_give_the_same_value(value: Any) -> None:
    assert decode(encode(value)) == value
    assert decode(json.dumps(value)) == value


@given(st.binary())
def test_any_bytes_are_decoded_or_refused_and_nothing_else(body: bytes) -> None:
    try:
        value = decode(body)
    except InvalidRequest:
        return
    assert json.loads(body) == value


@given(VALUES, st.text(max_size=3), VALUES)
def test_a_key_that_stands_twice_is_refused_at_any_depth(value: Any, key: str, other: Any) -> None:
    name = json.dumps(key)
    try:
        orjson.loads(name)
    except ValueError:
        return
    twice = f"{{{name}: {json.dumps(value)}, {name}: {json.dumps(other)}}}"
    for body in (twice, f"[[{twice}]]", f'{{"a": {twice}}}'):
        with pytest.raises(InvalidRequest, match="twice"):
            decode(body)


@pytest.mark.parametrize("text", ["at 12:30:05", "::::::::", '\\":1,\\"a'])
def test_colons_within_strings_neither_hide_nor_make_a_second_key(text: str) -> None:
    decode(f'{{"a": "{text}", "b": {{"c": "{text}"}}}}')
    with pytest.raises(InvalidRequest, match="'a' stands twice"):
        decode(f'{{"a": "{text}", "a": 1}}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"[1e999]",
        b'"\\ud800"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
        b"{'a': 1}",
        b"[1,]",
        b"01",
        b'"a\nb"',
        b"{} {}",
        b"/* */ {}",
        b"9" * 5000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_anything_but_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(body)


def test_nesting_is_bounded_however_it_is_nested() -> None:
    depth = DEEPEST_NESTING
    assert decode("[" * depth + "]" * depth)
    for body in ("[" * (depth + 1) + "]" * (depth + 1), '{"a":' * (depth + 1) + "1" + "}" * (depth + 1)):
        with pytest.raises(InvalidRequest, match="deep"):
            decode(body)
    for body in ("[" * 100_000 + "]" * 100_000, "[" * 100_000, '{"a":' * 50_000):
        with pytest.raises(InvalidRequest):
            decode(body)


@given(st.integers(0, 250_000_000_000_000_000).map(lambda micros: EPOCH + timedelta(microseconds=micros)))
def test_times_have_milliseconds_and_a_z(moment: datetime) -> None:
    written = instant(moment)
    assert len(written) == len("2026-01-31T12:00:00.000Z")
    assert written.endswith("Z")
    assert timedelta(0) <= moment - datetime.fromisoformat(written) < timedelta(milliseconds=1)
    assert encode({"at": moment}) == f'{{"at":"{written}"}}'.encode()


def test_a_value_without_a_json_form_is_refused() -> None:
    with pytest.raises(TypeError):
        encode({"value": object()})


@settings(max_examples=30)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, min_size=1, max_size=4))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(body: dict[str, Any]) -> None:
    assert fingerprint("intake", body) == fingerprint("intake", dict(reversed(body.items())))


def test_a_fingerprint_depends_on_everything_else() -> None:
    parts: list[tuple[Any, ...]] = [
        ("start", "item-1", {}),
        ("start", "item-2", {}),
        ("pause", "item-1", {}),
        ("start", "item-1", {"a": 1}),
        ("start", "item-1", {"a": "1"}),
        ("start", "item-1", {"a": True}),
        ("start", "item-1", {"a": None}),
        ("start", "item-1", {"a": [1, 2]}),
        ("start", "item-1", {"a": [2, 1]}),
        ("start", "item-1", {"a": math.pi}),
    ]
    assert len({fingerprint(*part) for part in parts}) == len(parts)
