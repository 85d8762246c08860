"""The operations on webhook endpoints: register, look at, test, resume and delete them.

A feature has endpoints of its own and gets its own items' events; an administrator's get every event, and an
administrator may manage a feature's too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace
from sqlalchemy import Connection

from app.domain.errors import InvalidRequest, NotFound
from app.domain.event import EventName
from app.domain.webhook import Delivery, Endpoint, EndpointStatus
from app.engine.deadline import Deadline
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import event_log, webhooks
from app.webhooks import signing
from app.webhooks.deliverer import Deliverer
from app.webhooks.posting import ATTEMPT_SECONDS
from app.webhooks.sender import Message, Sender
from app.webhooks.targets import Targets
from app.wire.encoding import encode

ENDPOINTS_OF_AN_OWNER = 20
BOTH_SECRETS_VALID = timedelta(hours=24)
"""How long deliveries are signed with the replaced secret as well."""
TEST_EVENT = "webhook.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    endpoint: Endpoint
    is_new: bool
    secret: str | None
    """The secret if this request has made it; no later answer shows it."""


class WebhookEndpoints:
    def __init__(
        self,
        *,
        queries: Queries,
        lanes: Lanes,
        deliverer: Deliverer,
        sender: Sender,
        targets: Targets,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._queries = queries
        self._lanes = lanes
        self.deliverer = deliverer
        self.sender = sender
        self._targets = targets
        self._clock = clock
        self._new_id = new_id

    async def register(
        self, owner: str, name: str, url: str, events: tuple[EventName, ...] | None, *, rotate_secret: bool
    ) -> Registered:
        """Make an endpoint, which gets the events from now on, or change one, which keeps its place in the log.

        A change also resumes a parked endpoint. `rotate_secret` gives an existing one a new secret; deliveries are
        signed with both for BOTH_SECRETS_VALID. Raises InvalidRequest for a URL that webhooks may not go to, and for an
        owner with ENDPOINTS_OF_AN_OWNER endpoints.
        """
        self._targets.check(url)
        now = self._clock()
        secret = signing.new_secret()

        def write(connection: Connection) -> Registered:
            existing = webhooks.find_endpoint(connection, owner, name)
            if existing is None:
                if len(webhooks.endpoints(connection, owner)) >= ENDPOINTS_OF_AN_OWNER:
                    raise InvalidRequest(f"There are {ENDPOINTS_OF_AN_OWNER} endpoints already; delete one first.")
                endpoint = Endpoint(
                    owner=owner,
                    name=name,
                    url=url,
                    events=events,
                    secret=secret,
                    cursor=event_log.log_end(connection),
                    next_attempt_at=now,
                    created_at=now,
                    updated_at=now,
                )
                webhooks.save_endpoint(connection, endpoint)
                return Registered(endpoint=endpoint, is_new=True, secret=secret)
            endpoint = _resumed(replace(existing, url=url, events=events, updated_at=now), now)
            if rotate_secret:
                endpoint = replace(
                    endpoint,
                    secret=secret,
                    previous_secret=existing.secret,
                    previous_secret_until=now + BOTH_SECRETS_VALID,
                )
            webhooks.save_endpoint(connection, endpoint)
            return Registered(endpoint=endpoint, is_new=False, secret=secret if rotate_secret else None)

        registered = await self._lanes.run(write)
        self.deliverer.wake()
        return registered

    async def resume(self, owner: str, name: str) -> Endpoint:
        """Try a parked or failing endpoint again now. Nothing was skipped. Raises NotFound."""
        now = self._clock()

        def write(connection: Connection) -> Endpoint:
            endpoint = _resumed(_found(webhooks.find_endpoint(connection, owner, name)), now)
            webhooks.save_endpoint(connection, endpoint)
            return endpoint

        endpoint = await self._lanes.run(write)
        self.deliverer.wake()
        return endpoint

    async def find(self, owner: str, name: str, deadline: Deadline | None = None) -> Endpoint:
        """Raises NotFound."""
        found = await self._queries.run(lambda connection: webhooks.find_endpoint(connection, owner, name), deadline)
        return _found(found)

    async def all_of(self, owner: str | None) -> list[Endpoint]:
        """An owner's endpoints; None: everybody's."""
        return await self._queries.run(lambda connection: webhooks.endpoints(connection, owner))

    async def delete(self, owner: str, name: str) -> None:
        """Raises NotFound."""
        if not await self._lanes.run(lambda connection: webhooks.delete_endpoint(connection, owner, name)):
            raise _no_such_endpoint()

    async def deliveries(self, owner: str, name: str, limit: int) -> list[Delivery]:
        """The last attempts, newest first. Raises NotFound."""
        await self.find(owner, name)
        return await self._queries.run(lambda connection: webhooks.deliveries(connection, owner, name, limit))

    async def test(self, owner: str, name: str) -> Delivery:
        """Send a signed `webhook.test` once and return the outcome within COMMAND_SECONDS. Raises NotFound."""
        deadline = Deadline(self._lanes.seconds)
        endpoint = await self.find(owner, name, deadline)
        body = encode({"type": TEST_EVENT, "timestamp": self._clock(), "data": {"name": name}})
        message = Message(
            message_id=f"test_{self._new_id()}", event=TEST_EVENT, performer_id=None, version=None, body=body
        )
        seconds = min(ATTEMPT_SECONDS, deadline.left(keep=self._lanes.commit_seconds))
        delivery = (await self.sender.send(endpoint, message, seconds=seconds)).delivery
        await self._lanes.run(
            lambda connection: webhooks.add_deliveries(connection, owner, name, [delivery]), deadline=deadline
        )
        return delivery


def _resumed(endpoint: Endpoint, now: datetime) -> Endpoint:
    """The endpoint without its failures and its lease: a process that still delivers to it records nothing more."""
    return replace(
        endpoint,
        status=EndpointStatus.ACTIVE,
        failures=0,
        failing_since=None,
        last_problem=None,
        next_attempt_at=now,
        lease_until=None,
    )


def _found(endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise _no_such_endpoint()
    return endpoint


def _no_such_endpoint() -> NotFound:
    return NotFound("There is no such webhook endpoint.")
