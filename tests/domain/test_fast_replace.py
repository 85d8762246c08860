"""Copying a record is what `dataclasses.replace` does."""

from dataclasses import FrozenInstanceError, replace

import pytest

from app.domain.item import Item, Status, changed
from tests.support.builders import build_item


def test_a_copy_has_the_changes_and_all_the_rest() -> None:
    item = build_item(1, duration_seconds=30)
    assert changed(item, status=Status.STARTED, tokens=7) == replace(item, status=Status.STARTED, tokens=7)


def test_the_one_before_stays_as_it_was() -> None:
    item = build_item(1)
    before = replace(item)
    assert changed(item, tokens=7) != item == before


def test_a_copy_is_as_fixed_as_what_it_was_made_of() -> None:
    copy: Item = changed(build_item(1), tokens=7)
    with pytest.raises(FrozenInstanceError):
        copy.tokens = 8  # type: ignore[misc]


def test_a_name_that_the_record_does_not_have_is_refused() -> None:
    with pytest.raises(AttributeError, match="tokenz"):
        changed(build_item(1), tokenz=7)
