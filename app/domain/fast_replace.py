"""`dataclasses.replace` for the few records that every command copies, at half its cost."""

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def replacing(kind: type[T]) -> Callable[..., T]:
    """A function like `dataclasses.replace`, for one dataclass with `slots=True` and no `__post_init__`.

    It sets the slots themselves: a frozen dataclass's own `__init__` takes its values by name, checks that it got them
    all, and sets each by the name again. A misspelt name is an AttributeError.
    """
    names = tuple(field.name for field in fields(kind))  # type: ignore[arg-type]
    values_of = attrgetter(*names)
    setters = tuple(getattr(kind, name).__set__ for name in names)
    set_by_name = object.__setattr__

    def replaced(value: T, **changes: Any) -> T:
        copy = object.__new__(kind)
        for set_slot, kept in zip(setters, values_of(value), strict=False):
            set_slot(copy, kept)
        for name, new in changes.items():
            set_by_name(copy, name, new)
        return copy

    return replaced
