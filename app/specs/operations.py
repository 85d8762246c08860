"""Every operation of the HTTP interface: roles, request, answers, and the codes of its refusals.

One table, in the contract's order. It decides nothing; tests check that the routes agree with it, and the service
with the document.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.errors import (
    DuplicateIdempotencyKey,
    EscrowAlreadyQueued,
    EscrowNotFound,
    Forbidden,
    InvalidMode,
    InvalidRequest,
    InvalidTransition,
    ItemNotFound,
    NotFound,
    PerformerNotFound,
    QueueClosed,
    QueueFull,
    RateLimitExceeded,
    Unauthorized,
    Unavailable,
    UserLimitReached,
)
from app.wire import admin_shapes, push_shapes, report_shapes, shapes, timeline_shapes, webhook_shapes
from app.wire.commands import ITEM_COMMANDS, ITEM_PATH, ROOM_PATH, SETTINGS, START_NEXT, CommandSpec, Refusals, Who
from app.wire.requests import (
    DisconnectRequest,
    EmptyRequest,
    IntakeRequest,
    PushSubscriptionRequest,
    Request,
    ResolveRequest,
    RetryOperationsRequest,
    WalletCheckRequest,
    WebhookRequest,
)

HTML = "text/html"
TEXT = "text/plain"
MANIFEST = "application/manifest+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. A token is required unless `who` is empty."""

    method: str
    path: str
    name: str
    summary: str
    tag: str
    who: str = ""
    """The callers whose tokens are accepted; empty: no token is needed."""
    public: bool = False
    """No token is needed where PUBLIC_ROOMS is on."""
    body: type[Request] | None = None
    parameters: Sequence[str] = ()
    """Keys of `openapi.PARAMETERS`, beside the path's parameters and those that every operation has."""
    answers: Mapping[int, type | str | None]
    """By status: the shape of the JSON, the media type of any other content, or None for no content."""
    refuses: Refusals = ()
    notes: str = ""


TAGS: Mapping[str, str] = {
    "Items": "Paid requests: intake, state, position, audit trail, and the commands of the performer's side.",
    "Rooms": "A performer's queue, its settings, its history and its figures.",
    "Users": "One user's items in all rooms.",
    "Event log": "All events, durable and in order, by the page or as a stream.",
    "Webhooks": "Endpoints that events are delivered to: signed (Standard Webhooks), at least once, in order by room.",
    "Push": "Notifications to the browsers of viewers who have asked for them (Web Push).",
    "Administration": "All rooms, their sockets and figures, and the wallet operations.",
    "Service": "Health, metrics and these descriptions.",
    "Pages": "Pages for people; a token reaches one in the fragment of its address.",
}
"""By name, in the order of the documents."""

TOKEN: Refusals = (Unauthorized, Unavailable)
READ_ITEM: Refusals = (*TOKEN, Forbidden, ItemNotFound)
COMMAND: Refusals = (*TOKEN, Forbidden, InvalidRequest, DuplicateIdempotencyKey)
LISTING: Refusals = (*TOKEN, Forbidden, InvalidRequest)

OWNERS = "the item's feature, its user, its performer, a moderator of the room, an administrator"
ADMIN = "an administrator"
WEBHOOK_OWNERS = "a feature, for its own endpoints; an administrator"
SUBSCRIBER = "a viewer, for their own browsers"
WEBHOOK: Refusals = (*TOKEN, Forbidden, InvalidRequest, NotFound)


def _command(spec: CommandSpec, tag: str, answer: type, *, notes: str = "") -> Operation:
    # A key is honoured on every POST.
    by_key: Refusals = (DuplicateIdempotencyKey,) if spec.method == "POST" else ()
    return Operation(
        method=spec.method,
        path=spec.path,
        name=spec.operation,
        summary=spec.summary,
        tag=tag,
        who=spec.who,
        body=spec.request,
        answers={200: answer},
        refuses=(*TOKEN, *by_key, *spec.refuses),
        notes=notes,
    )


def _get(path: str, name: str, summary: str, tag: str, answer: type | str, **more: Any) -> Operation:
    return Operation(method="GET", path=path, name=name, summary=summary, tag=tag, answers={200: answer}, **more)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/v1/queue/items",
        name="intake",
        summary="Queue a paid request",
        tag="Items",
        who="a feature, for its own sourceFeature; an administrator",
        body=IntakeRequest,
        answers={201: shapes.WholeItem, 200: shapes.WholeItem},
        refuses=(
            *COMMAND,
            InvalidMode,
            EscrowAlreadyQueued,
            EscrowNotFound,
            QueueFull,
            UserLimitReached,
            QueueClosed,
            RateLimitExceeded,
        ),
        notes="The idempotency key is required, in the body or as the header. 200 in place of 201: the key was known, "
        "and this is the first answer again.",
    ),
    _get(ITEM_PATH, "item", "An item", "Items", shapes.WholeItem, who=OWNERS, refuses=READ_ITEM),
    _get(
        f"{ITEM_PATH}/position",
        "position",
        "Its position and its estimated wait",
        "Items",
        shapes.PositionShape,
        who=OWNERS,
        refuses=READ_ITEM,
    ),
    _get(
        f"{ITEM_PATH}/transitions",
        "transitions",
        "Its audit trail, oldest first",
        "Items",
        shapes.TransitionsShape,
        who=OWNERS,
        refuses=READ_ITEM,
    ),
    *(_command(spec, "Items", shapes.WholeItem) for spec in ITEM_COMMANDS),
    _get(
        ROOM_PATH,
        "queue",
        "A performer's queue: the room and its active items in order",
        "Rooms",
        shapes.QueueShape,
        who="anybody with a token; the performer's side and administrators see whole items",
        public=True,
        parameters=("version",),
        refuses=(*LISTING, NotFound, PerformerNotFound),
        notes="With `version`: the performer's side, administrators, and features, which see their own items. 404 if "
        "the room has not been at that version, or its log no longer reaches back so far.",
    ),
    _command(
        SETTINGS,
        "Rooms",
        shapes.RoomShape,
        notes="Only the given fields change. A room is created by its first intake or setting.",
    ),
    _get(
        f"{ROOM_PATH}/depth",
        "depth",
        "How many active items a queue has",
        "Rooms",
        shapes.DepthShape,
        who="anybody with a token",
        public=True,
        refuses=(*TOKEN, PerformerNotFound),
    ),
    _get(
        f"{ROOM_PATH}/outlook",
        "outlook",
        "The estimated wait of a new request, and how accurate such estimates have been lately",
        "Rooms",
        shapes.OutlookShape,
        who="anybody with a token",
        public=True,
        refuses=(*TOKEN, PerformerNotFound),
        notes="The accuracy is up to a minute old.",
    ),
    _command(START_NEXT, "Rooms", shapes.WholeItem),
    _get(
        f"{ROOM_PATH}/history",
        "history",
        "A room's ended items, newest first",
        "Rooms",
        shapes.ItemsPage,
        who=Who.STAGE,
        parameters=("limit", "skip"),
        refuses=(*LISTING, PerformerNotFound),
    ),
    _get(
        f"{ROOM_PATH}/analytics",
        "analytics",
        "A room's figures over a span: counts, waits, rates, tokens, accuracy of the estimates",
        "Rooms",
        report_shapes.Analytics,
        who=Who.STAGE,
        parameters=("from", "to"),
        refuses=(*LISTING, PerformerNotFound),
    ),
    _get(
        f"{ROOM_PATH}/timeline",
        "timeline",
        "A room's events over a span: actors, reasons, estimates sent, tokens moved",
        "Rooms",
        timeline_shapes.TimelineShape,
        who=Who.STAGE,
        parameters=("from", "to", "events", "afterVersion"),
        refuses=(*LISTING, PerformerNotFound),
        notes="The room at any of its versions is `GET …/queue?version=V`.",
    ),
    _get(
        "/v1/users/{userId}/queue/items",
        "user_items",
        "A user's items, newest first",
        "Users",
        shapes.ItemsPage,
        who="the user, an administrator",
        parameters=("limit", "skip"),
        refuses=(*LISTING, NotFound),
    ),
    Operation(
        method="GET",
        path="/v1/events",
        name="events",
        summary="The durable event log, in order; no event is inserted later",
        tag="Event log",
        who="a feature (its own events), the performer or a moderator (their room's), an administrator",
        parameters=("after", "events", "performer", "lastEventId"),
        answers={200: shapes.EventsPage},
        refuses=(*LISTING, RateLimitExceeded),
        notes="With `Accept: text/event-stream` the log as it grows: each event as `id` (its cursor) and `data` (the "
        "event as JSON). The stream begins after `Last-Event-ID`, else after `after`, else at the beginning; a comment "
        "comes at least every 15 s. The stream ends when the token expires or the service stops; the next one resumes.",
    ),
    _get(
        "/v1/webhooks",
        "webhooks",
        "A feature's webhook endpoints; for an administrator everybody's",
        "Webhooks",
        webhook_shapes.WebhooksShape,
        who=WEBHOOK_OWNERS,
        parameters=("sourceFeature",),
        refuses=(*TOKEN, Forbidden, InvalidRequest),
    ),
    Operation(
        method="PUT",
        path="/v1/webhooks/{name}",
        name="register_webhook",
        summary="Make or change a webhook endpoint",
        tag="Webhooks",
        who=WEBHOOK_OWNERS,
        body=WebhookRequest,
        parameters=("sourceFeature",),
        answers={201: webhook_shapes.WebhookShape, 200: webhook_shapes.WebhookShape},
        refuses=(*TOKEN, Forbidden, InvalidRequest),
        notes="A new endpoint gets the events from now on; its secret is in this answer only. `rotateSecret` gives an "
        "existing endpoint a new secret; for 24 hours deliveries are signed with the old one as well. "
        "A change resumes a parked endpoint.",
    ),
    _get(
        "/v1/webhooks/{name}",
        "webhook",
        "A webhook endpoint and the state of its deliveries",
        "Webhooks",
        webhook_shapes.WebhookShape,
        who=WEBHOOK_OWNERS,
        parameters=("sourceFeature",),
        refuses=WEBHOOK,
    ),
    Operation(
        method="DELETE",
        path="/v1/webhooks/{name}",
        name="delete_webhook",
        summary="Delete a webhook endpoint",
        tag="Webhooks",
        who=WEBHOOK_OWNERS,
        parameters=("sourceFeature",),
        answers={204: None},
        refuses=WEBHOOK,
    ),
    _get(
        "/v1/webhooks/{name}/deliveries",
        "webhook_deliveries",
        "The last attempts to deliver to an endpoint, the newest first",
        "Webhooks",
        webhook_shapes.DeliveriesShape,
        who=WEBHOOK_OWNERS,
        parameters=("sourceFeature", "deliveries"),
        refuses=WEBHOOK,
    ),
    Operation(
        method="POST",
        path="/v1/webhooks/{name}/test",
        name="test_webhook",
        summary="Send one signed `webhook.test` now and return the outcome",
        tag="Webhooks",
        who=WEBHOOK_OWNERS,
        body=EmptyRequest,
        parameters=("sourceFeature",),
        answers={200: webhook_shapes.DeliveryShape},
        refuses=WEBHOOK,
    ),
    Operation(
        method="POST",
        path="/v1/webhooks/{name}/resume",
        name="resume_webhook",
        summary="Try a parked or failing endpoint again now; nothing was skipped",
        tag="Webhooks",
        who=WEBHOOK_OWNERS,
        body=EmptyRequest,
        parameters=("sourceFeature",),
        answers={200: webhook_shapes.WebhookShape},
        refuses=WEBHOOK,
    ),
    _get("/v1/push", "push", "The key that browsers subscribe with", "Push", push_shapes.PushShape),
    Operation(
        method="PUT",
        path="/v1/push/subscriptions/{name}",
        name="subscribe",
        summary="Store or renew a browser's push subscription",
        tag="Push",
        who=SUBSCRIBER,
        body=PushSubscriptionRequest,
        answers={201: push_shapes.PushSubscriptionShape, 200: push_shapes.PushSubscriptionShape},
        refuses=(*TOKEN, Forbidden, InvalidRequest, NotFound),
        notes="The browser chooses the name and keeps it. An endpoint belongs to one subscription: any other with the "
        "same endpoint is removed. A user has at most 10 subscriptions; an eleventh removes the one that was renewed "
        "longest ago. A subscription that is not renewed for 90 days is removed. 404 where no notifications are sent.",
    ),
    Operation(
        method="DELETE",
        path="/v1/push/subscriptions/{name}",
        name="unsubscribe",
        summary="Remove a browser's push subscription",
        tag="Push",
        who=SUBSCRIBER,
        answers={204: None},
        refuses=(*TOKEN, Forbidden, NotFound),
    ),
    _get(
        "/v1/admin/rooms",
        "rooms",
        "All rooms, the most recently active first",
        "Administration",
        admin_shapes.RoomsPage,
        who=ADMIN,
        parameters=("limit", "skip"),
        refuses=LISTING,
    ),
    _get(
        "/v1/admin/items",
        "search_items",
        "The items that a search finds, newest first",
        "Administration",
        admin_shapes.FoundItems,
        who=ADMIN,
        parameters=("search", "limit"),
        refuses=LISTING,
        notes="The id of a feature's event and the end of a reference are searched in the newest 20,000 items, "
        "everything else in all items.",
    ),
    _get(
        "/v1/admin/audiences",
        "audiences",
        "The sockets of every watched room and how they keep up, over all processes, the most watched room first",
        "Administration",
        admin_shapes.AudiencesPage,
        who=ADMIN,
        parameters=("performers", "limit", "skip"),
        refuses=LISTING,
        notes="A room without a socket is not listed. The figures of other processes are some seconds old; "
        "`processes` is the number of processes that are included.",
    ),
    Operation(
        method="POST",
        path="/v1/admin/sockets/disconnect",
        name="disconnect_sockets",
        summary="End the sockets and event streams of a person, or of a room, in all processes",
        tag="Administration",
        who=ADMIN,
        body=DisconnectRequest,
        answers={200: admin_shapes.DisconnectedShape},
        refuses=COMMAND,
        notes="Sockets are closed with 4503, after which a client does not come back by itself; event streams break "
        "off. A token that is still valid opens another. After 503 only those of one process are closed, and the same "
        "idempotency key may be used again.",
    ),
    _get(
        "/v1/admin/analytics",
        "all_analytics",
        "The figures over all rooms",
        "Administration",
        report_shapes.Analytics,
        who=ADMIN,
        parameters=("from", "to"),
        refuses=LISTING,
    ),
    _get(
        "/v1/admin/wallet-operations",
        "wallet_operations",
        "The wallet operations, newest first",
        "Administration",
        admin_shapes.OperationsPage,
        who=ADMIN,
        parameters=("operationStatus", "operationItem", "limit", "skip"),
        refuses=LISTING,
    ),
    Operation(
        method="POST",
        path="/v1/admin/wallet-operations/{operationId}/retry",
        name="retry_operation",
        summary="Try a dead operation again, or a retrying one now",
        tag="Administration",
        who=ADMIN,
        body=EmptyRequest,
        answers={200: admin_shapes.OperationShape},
        refuses=(*COMMAND, NotFound, InvalidTransition),
    ),
    Operation(
        method="POST",
        path="/v1/admin/wallet-operations/retry",
        name="retry_operations",
        summary="Try all dead operations again",
        tag="Administration",
        who=ADMIN,
        body=RetryOperationsRequest,
        answers={200: admin_shapes.RetriedShape},
        refuses=COMMAND,
        notes="One request retries at most 10,000 operations, fewer if time runs out. Repeat it until none is retried.",
    ),
    Operation(
        method="POST",
        path="/v1/admin/wallet-operations/{operationId}/resolve",
        name="resolve_operation",
        summary="End an operation by hand: settle, refund or write off",
        tag="Administration",
        who=ADMIN,
        body=ResolveRequest,
        answers={200: admin_shapes.OperationShape},
        refuses=(*COMMAND, NotFound, InvalidTransition),
        notes="For an operation that is dead, or that retries and is not under way. The wallet is asked first: a held "
        "escrow allows any resolution, one that was resolved meanwhile is confirmed as it is. Writing off changes "
        "nothing at the wallet.",
    ),
    _get(
        "/v1/admin/wallet-check",
        "last_wallet_check",
        "The result of the last comparison with the wallet, by any process or the command line",
        "Administration",
        admin_shapes.WalletCheckShape,
        who=ADMIN,
        refuses=(*TOKEN, Forbidden),
    ),
    Operation(
        method="POST",
        path="/v1/admin/wallet-check",
        name="wallet_check",
        summary="Compare the open and recent escrows with the wallet, one part per request",
        tag="Administration",
        who=ADMIN,
        body=WalletCheckRequest,
        answers={200: admin_shapes.WalletCheckPart},
        refuses=LISTING,
        notes="An answer covers the escrows that could be compared in time. Send its `next` until that is null; then "
        "the result is recorded for the metrics. The queue is not changed. 503 while the wallet cannot be asked, "
        "and while another comparison runs.",
    ),
    _get("/healthz", "healthz", "Whether the process is alive", "Service", shapes.HealthShape),
    Operation(
        method="GET",
        path="/readyz",
        name="readyz",
        summary="Whether it can reach what it needs, by dependency",
        tag="Service",
        answers={200: shapes.ReadinessShape, 503: shapes.ReadinessShape},
    ),
    _get(
        "/metrics",
        "metrics",
        "Metrics for a Prometheus server; for this machine, METRICS_TOKEN and administrators",
        "Service",
        TEXT,
        refuses=(*TOKEN, Forbidden),
    ),
    _get("/openapi.json", "openapi", "This document", "Service", dict),
    _get("/asyncapi.json", "asyncapi", "The live socket's frames (AsyncAPI 3.0)", "Service", dict),
    _get("/docs", "docs", "This document as a page", "Pages", HTML),
    _get("/docs/guides", "guides", "The list of guides", "Pages", HTML),
    _get("/docs/guides/{name}", "guide", "A guide", "Pages", HTML, refuses=(NotFound,)),
    _get("/", "index", "The front page", "Pages", HTML),
    _get("/watch/{performerId}", "watch", "The viewer's page", "Pages", HTML),
    _get(
        "/watch/{performerId}/manifest.webmanifest",
        "manifest",
        "The web app manifest, with which a browser installs the viewer's page",
        "Pages",
        MANIFEST,
        refuses=(NotFound,),
    ),
    _get("/panel", "panel", "The performer's panel", "Pages", HTML),
    _get("/overlay/{performerId}", "overlay", "The overlay for a stream", "Pages", HTML),
    _get("/admin", "admin", "The administrator's page", "Pages", HTML),
)
