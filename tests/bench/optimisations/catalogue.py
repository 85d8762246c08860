"""All optimisations by name, each with its operation and its plain way."""

from tests.bench.optimisations import plain
from tests.bench.optimisations.here import (
    COMMIT,
    DOCUMENTS,
    GUIDE,
    MODULES,
    PAGE,
    REQUEST,
    ROOM_LOAD,
    START_OF_SITE,
)
from tests.bench.optimisations.measuring import Operation, Optimisation
from tests.bench.optimisations.operations import (
    BROADCAST,
    ENDED_ITEM_READ,
    INTAKE,
    JOIN,
    LONG_QUEUE_INTAKE,
    OUTLOOK,
    POSITION_READ,
    PROXIED_INTAKE,
    QUEUE_READ,
    VIEWER,
)
from tests.bench.optimisations.swap import Plain

_BY_OPERATION: tuple[tuple[Operation, dict[str, Plain]], ...] = (
    (
        COMMIT,
        {
            "bulk": plain.STATEMENTS_BY_SQLALCHEMY,
            "questions": plain.QUESTIONS_BY_SQLALCHEMY,
            "constants": plain.EVERY_COLUMN,
            "texts": plain.ENUMERATIONS,
            "answers": plain.ANSWER_ROWS,
            "progress": plain.WHOLE_ROOMS,
        },
    ),
    (
        REQUEST,
        {
            "tokens": plain.TOKENS_VERIFIED_EACH_TIME,
            "colons": plain.EVERY_BODY_READ_TWICE,
        },
    ),
    (
        INTAKE,
        {
            "pause": plain.NO_PAUSE_OF_THE_LANE,
            "collector": plain.USUAL_COLLECTOR,
            "one-write": plain.TWO_WRITES,
        },
    ),
    (
        LONG_QUEUE_INTAKE,
        {
            "renewed": plain.CHANGED_BY_SET,
            "backlog": plain.BACKLOG_ADDED_UP,
            "last-first": plain.POSITION_FROM_THE_FRONT,
            "arrivals": plain.EVERY_ARRIVAL_SORTED_IN,
        },
    ),
    (PROXIED_INTAKE, {"addresses": plain.ADDRESSES_READ_EACH_TIME, "proxies": plain.PROXIES_SOUGHT_EACH_TIME}),
    (
        POSITION_READ,
        {
            "turns": plain.EACH_TURN_BY_ITSELF,
            "ranges": plain.EVERY_RANGE,
            "first-waits": plain.EVERY_WAIT,
            "room-of-item": plain.ITEMS_LOOKED_UP,
        },
    ),
    (OUTLOOK, {"accuracies": plain.ACCURACY_READ_EACH_TIME}),
    (QUEUE_READ, {"instants": plain.TIMES_EACH_TIME}),
    (ENDED_ITEM_READ, {"statements": plain.STATEMENTS_BUILT_ANEW}),
    (
        BROADCAST,
        {
            "ready": plain.EACH_CONNECTION_LOOKED_AT,
            "direct": plain.UVLOOPS_WRITES,
            "unready": plain.EVERYBODY_LOOKED_AT,
            "endpoints": plain.ENDPOINTS_LOOKED_FOR_AT_EACH_COMMIT,
        },
    ),
    (JOIN, {"snapshots": plain.SNAPSHOT_EACH_TIME, "joined": plain.EACH_WRITE_BY_ITSELF}),
    (VIEWER, {"handshake": plain.HANDSHAKE_KEPT}),
    (START_OF_SITE, {"modules": plain.MODULES_LINKED_EACH_TIME, "imports": plain.IMPORTS_FOUND_EACH_TIME}),
    (MODULES, {"thorough": plain.QUICK_COMPRESSION}),
    (DOCUMENTS, {"documents": plain.DOCUMENTS_EACH_TIME}),
    (PAGE, {"site": plain.SITE_EACH_TIME}),
    (GUIDE, {"guides": plain.GUIDES_READ_EACH_TIME, "filled-in": plain.GUIDES_FILLED_IN_EACH_TIME}),
    (
        ROOM_LOAD,
        {
            "histories": plain.WITHOUT_HISTORIES,
            "room-rows": plain.ROWS_BY_SQLALCHEMY,
            "layouts": plain.LAYOUT_EACH_TIME,
        },
    ),
)

ALL: dict[str, Optimisation] = {
    name: Optimisation(name=name, operation=operation, plain=way)
    for operation, ways in _BY_OPERATION
    for name, way in ways.items()
}
