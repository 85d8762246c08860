"""The peers, as data: what each is, what it needs and how it is spoken to."""

from dataclasses import dataclass
from enum import StrEnum


class Runtime(StrEnum):
    OWN = "the project's Python"
    VENV = "a throw-away Python environment"
    NODE = "Node.js"
    BUN = "Bun"
    C = "a C compiler"
    NGINX = "nginx with Nchan"
    GO = "Go with the libraries that Debian packages"


class Wire(StrEnum):
    """How a message gets in and out."""

    WEBSOCKET = "websocket"
    SOCKETIO = "socketio"
    NCHAN = "nchan"
    CENTRIFUGE = "centrifuge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    name: str
    runtime: Runtime
    source: str
    """In this folder."""
    arguments: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """Of the Python package index or of npm, as the runtime has it."""
    proof: str = ""
    """The module that can be imported once the packages are there."""
    wire: Wire = Wire.WEBSOCKET


UVICORN = ("uvicorn>=0.54,<0.56", "httptools", "uvloop", "websockets>=17.1,<18")

FLOOR = Peer(name="C floor", runtime=Runtime.C, source="floor.c")

FANOUT = (
    FLOOR,
    Peer(
        name="uWebSockets",
        runtime=Runtime.VENV,
        source="socketify_fanout.py",
        packages=("socketify",),
        proof="socketify",
    ),
    Peer(name="Bun", runtime=Runtime.BUN, source="bun_fanout.cjs", packages=("bun",), proof="bun"),
    Peer(name="Nchan", runtime=Runtime.NGINX, source="nchan.conf", wire=Wire.NCHAN),
    Peer(name="Centrifuge", runtime=Runtime.GO, source="centrifuge_fanout.go", wire=Wire.CENTRIFUGE),
    Peer(name="Node ws", runtime=Runtime.NODE, source="ws_fanout.cjs", packages=("ws",), proof="ws"),
    Peer(name="websockets.broadcast", runtime=Runtime.OWN, source="websockets_broadcast.py"),
    Peer(name="Starlette loop", runtime=Runtime.OWN, source="starlette_fanout.py", arguments=("loop",)),
    Peer(name="queue per socket", runtime=Runtime.OWN, source="starlette_fanout.py", arguments=("queues",)),
    Peer(
        name="Socket.IO",
        runtime=Runtime.NODE,
        source="socketio_fanout.cjs",
        packages=("socket.io",),
        proof="socket.io",
        wire=Wire.SOCKETIO,
    ),
    Peer(
        name="python-socketio",
        runtime=Runtime.VENV,
        source="socketio_fanout.py",
        packages=("python-socketio", *UVICORN),
        proof="socketio",
        wire=Wire.SOCKETIO,
    ),
    Peer(
        name="Django Channels",
        runtime=Runtime.VENV,
        source="channels_fanout.py",
        packages=("channels", *UVICORN),
        proof="channels",
    ),
)

NO_DATABASE = Peer(name="no database", runtime=Runtime.OWN, source="no_database.py")
OWN_EDGE = f"{NO_DATABASE.name}, own edge"
"""The same peer started otherwise: with the service's outermost layer and its check of tokens."""
OWN_EDGE_ARGUMENT = "edge"
NAIVE = Peer(name="session a request", runtime=Runtime.OWN, source="naive.py")
BULLMQ = Peer(
    name="Fastify + BullMQ",
    runtime=Runtime.NODE,
    source="fastify_bullmq.cjs",
    packages=("fastify", "bullmq", "ioredis"),
    proof="bullmq",
)

ALL = (*FANOUT, NO_DATABASE, NAIVE, BULLMQ)
