"""Puts a plain way in the place of an optimisation, for as long as a block lasts."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

Plain = Callable[[], AbstractContextManager[object]]
"""While it is entered, the plain way is in use."""


def swapped(*changes: tuple[Any, str, Any]) -> Plain:
    """Sets these attributes of modules and classes, and puts back what was there."""

    @contextmanager
    def plain() -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, value in changes:
                stack.callback(setattr, owner, name, vars(owner)[name])
                setattr(owner, name, value)
            yield

    return plain


def uncached(owner: Any, *names: str) -> Plain:
    """Without the `functools` cache around these functions."""
    return swapped(*((owner, name, vars(owner)[name].__wrapped__) for name in names))
