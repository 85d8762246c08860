"""The sockets of one room, in groups that get the same frames at the same time."""

from collections.abc import Iterator
from itertools import chain

from app.domain.room import Room
from app.domain.view import View
from app.live.subscriber import Format, Group, Subscriber


class Groups:
    """All groups of a room, and its sockets by the user whose own items they get."""

    def __init__(self, largest: int) -> None:
        """`largest`: the most sockets of a group."""
        self.largest = largest
        self._groups: dict[Format, list[Group]] = {
            Format(view, deflates): [] for view in View for deflates in (False, True)
        }
        self.owners: dict[str, set[Subscriber]] = {}

    def __len__(self) -> int:
        """The number of sockets."""
        return sum(len(group.members) for group in self)

    def __iter__(self) -> Iterator[Group]:
        return chain.from_iterable(self._groups.values())

    @property
    def subscribers(self) -> list[Subscriber]:
        return [subscriber for group in self for subscriber in group.members]

    def add(self, subscriber: Subscriber, room: Room, version: int) -> None:
        """Add a socket that is about to get this room. `version`: the one of the socket's view."""
        self._group_at(subscriber.format, room, version).add(subscriber)
        if subscriber.owner_id is not None:
            self.owners.setdefault(subscriber.owner_id, set()).add(subscriber)

    def move(self, subscriber: Subscriber, room: Room, version: int) -> None:
        """Move a socket that is about to get this room to a group that is at it and at this version."""
        if subscriber.group is None or not subscriber.group.is_at(room, version):
            self._take_out(subscriber)
            self._group_at(subscriber.format, room, version).add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        self._take_out(subscriber)
        if subscriber.owner_id is not None and (sockets := self.owners.get(subscriber.owner_id)):
            sockets.discard(subscriber)
            if not sockets:
                del self.owners[subscriber.owner_id]

    def _group_at(self, form: Format, room: Room, version: int) -> Group:
        groups = self._groups[form]
        last = groups[-1] if groups else None
        if last is None or not last.is_at(room, version) or len(last.members) >= self.largest:
            last = Group(form, room, version)
            groups.append(last)
        return last

    def _take_out(self, subscriber: Subscriber) -> None:
        if (group := subscriber.group) is not None:
            group.remove(subscriber)
            if not group.members:
                self._groups[group.format].remove(group)

    def merge_small(self) -> None:
        """Make one group of neighbours at the same version that have become small."""
        for groups in self._groups.values():
            kept: list[Group] = []
            for group in groups:
                last = kept[-1] if kept else None
                fits = last is not None and len(last.members) + len(group.members) <= self.largest
                if last is not None and fits and last.is_at(group.room, group.version):
                    last.take_over(group)
                else:
                    kept.append(group)
            groups[:] = kept
