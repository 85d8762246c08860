"""Methods of uvicorn, Starlette and websockets that we override or whose fields we use, as we have read them.

A failure here is not a defect yet: the library has changed. Compare its new source with our override, change that if
need be, and put the new digest into the table.
"""

import inspect
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import Server
from uvicorn.supervisors.multiprocess import Multiprocess, Process
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.protocol import Protocol
from websockets.server import ServerProtocol

from app.server.compression import SharedDeflate
from app.server.draining_server import DrainingServer
from app.server.http_protocol import QueueHttpProtocol
from app.server.middleware import Service
from app.server.supervisor import Worker, Workers
from app.server.websocket_protocol import QueueSocketProtocol, _Protocol

OVERRIDES: dict[type, type] = {
    QueueHttpProtocol: HttpToolsProtocol,
    QueueSocketProtocol: WebSocketsSansIOProtocol,
    _Protocol: ServerProtocol,
    SharedDeflate: ServerPerMessageDeflateFactory,
    DrainingServer: Server,
    Worker: Process,
    Workers: Multiprocess,
    Service: Starlette,
}
RELIED_ON: list[Callable[..., Any]] = [
    FlowControl.pause_reading,
    FlowControl.resume_reading,
    RequestResponseCycle.send,
    RequestResponseCycle.receive,
    RequestResponseCycle.run_asgi,
    WebSocketsSansIOProtocol.receive,
    WebSocketsSansIOProtocol.run_asgi,
    WebSocketsSansIOProtocol.handle_events,
    WebSocketsSansIOProtocol.send_keepalive_ping,
    Protocol.parse,
    Protocol.discard,
    Config.load,
]
"""Not overridden, but our overrides build on what they do."""

DIGESTS: dict[str, str] = {
    "Config.load": "92b7159dce105a9c",
    "FlowControl.pause_reading": "7c27388bb984e9ed",
    "FlowControl.resume_reading": "a0429d30857e8488",
    "HttpToolsProtocol.__init__": "4f08999410347141",
    "HttpToolsProtocol._should_upgrade": "8fcad1ab8e096739",
    "HttpToolsProtocol._start_asgi_task": "9c08c2571ae9b038",
    "HttpToolsProtocol.connection_lost": "c91a4c9bf2e29c55",
    "HttpToolsProtocol.connection_made": "6efb565ff3d36b91",
    "HttpToolsProtocol.data_received": "010a7ae59a5d3b1a",
    "HttpToolsProtocol.handle_websocket_upgrade": "179c4f769386ab89",
    "HttpToolsProtocol.on_headers_complete": "1ea8589acfad92d8",
    "HttpToolsProtocol.on_message_begin": "96d377fdc7c2baef",
    "HttpToolsProtocol.on_message_complete": "1fbad42dc31fc01f",
    "HttpToolsProtocol.on_response_complete": "64e254f28e389e76",
    "HttpToolsProtocol.pause_writing": "17a8fd215d96a13c",
    "HttpToolsProtocol.resume_writing": "7844bbaa8cceb1ef",
    "HttpToolsProtocol.shutdown": "d7351fa33f00d430",
    "HttpToolsProtocol.timeout_keep_alive_handler": "8b53bf5f2e202970",
    "Multiprocess.__init__": "5e0f105cb4a381b5",
    "Multiprocess.handle_hup": "c6701178f72d4d79",
    "Multiprocess.handle_ttin": "ebfc0650752a779d",
    "Multiprocess.init_processes": "6c69f2a36bf55750",
    "Multiprocess.keep_subprocess_alive": "3ba4980aa33bcecd",
    "Process.__init__": "a8c85f799aae5b2c",
    "Process.ping": "5549e98e2cc2f30e",
    "Process.server": "0bc0d378bdef89dd",
    "Protocol.discard": "c40ae1ef57fd326c",
    "Protocol.parse": "45aaf900644b63c4",
    "RequestResponseCycle.receive": "8124ae006be71184",
    "RequestResponseCycle.run_asgi": "0f33f2449a444bc2",
    "RequestResponseCycle.send": "abdd8601b326a8da",
    "Server.run": "239e0133d4307e38",
    "Server.shutdown": "9b33c50562992b1e",
    "Server.startup": "2aa1d70a244bfcf2",
    "ServerPerMessageDeflateFactory.__init__": "781a7530ec5cb6b2",
    "ServerPerMessageDeflateFactory.process_request_params": "2074a0e580a53251",
    "ServerProtocol.__init__": "8792b72850840da2",
    "ServerProtocol.accept": "f2f96c48162dbfda",
    "ServerProtocol.fail": "924ae7075dc75a9d",
    "ServerProtocol.parse": "8c4d10340de4d32f",
    "ServerProtocol.recv_frame": "4f83d3b90ea62428",
    "ServerProtocol.reject": "9d2df62f1952aab7",
    "Starlette.build_middleware_stack": "aca3f8e780a2be62",
    "WebSocketsSansIOProtocol.__init__": "631dcd744eab875f",
    "WebSocketsSansIOProtocol.connection_lost": "dd116afc4d8034e1",
    "WebSocketsSansIOProtocol.connection_made": "f533ec93747c2cbf",
    "WebSocketsSansIOProtocol.data_received": "c89d394077d8841d",
    "WebSocketsSansIOProtocol.eof_received": "5652627579a02369",
    "WebSocketsSansIOProtocol.handle_close": "62fd412b1f5b9e86",
    "WebSocketsSansIOProtocol.handle_connect": "fc648c2161ff8e13",
    "WebSocketsSansIOProtocol.handle_events": "b2c9351a5d13493f",
    "WebSocketsSansIOProtocol.handle_parser_exception": "ff5cf13c764fb332",
    "WebSocketsSansIOProtocol.handle_ping": "41bcf345d372c55c",
    "WebSocketsSansIOProtocol.keepalive_timeout": "8e1ceb6ec446de9d",
    "WebSocketsSansIOProtocol.pause_writing": "4830f7e0d81f877d",
    "WebSocketsSansIOProtocol.receive": "1dc0e715390021a1",
    "WebSocketsSansIOProtocol.resume_writing": "ef79384e5fff077c",
    "WebSocketsSansIOProtocol.run_asgi": "662375aa38d9044c",
    "WebSocketsSansIOProtocol.send": "d4919ed760ce9f7b",
    "WebSocketsSansIOProtocol.send_keepalive_ping": "02da3945b3e6b110",
    "WebSocketsSansIOProtocol.send_receive_event_to_app": "a2b10de91477dc1d",
    "WebSocketsSansIOProtocol.shutdown": "e8ace796ada616b7",
}


def function_of(function: Any) -> Callable[..., Any]:
    found: Any = function.fget if isinstance(function, property) else inspect.unwrap(function)
    return cast(Callable[..., Any], found)


def overridden() -> dict[str, Any]:
    """The methods of upstream classes that our classes replace or extend, by name."""
    found = {}
    for ours, theirs in OVERRIDES.items():
        for name in vars(ours):
            original = getattr(theirs, name, None)
            if (callable(original) or isinstance(original, property)) and original is not getattr(object, name, None):
                found[f"{theirs.__name__}.{name}"] = original
    return {name: function for name, function in found.items() if not name.endswith(("__doc__", "__module__"))}


def watched() -> dict[str, Any]:
    return overridden() | {function.__qualname__: function for function in RELIED_ON}


def digest(function: Any) -> str:
    return sha256(inspect.getsource(function_of(function)).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(watched()))
def test_the_original_is_the_one_that_we_have_read(name: str) -> None:
    function = watched()[name]
    assert digest(function) == DIGESTS.get(name), (
        f"{name} has changed in {function_of(function).__module__}, or is overridden for the first time: read its "
        "source and our override in app/server, and see whether what the override's docstring says is kept of the "
        f'original is still so. Then the entry is "{name}": "{digest(function)}".'
    )


def test_nothing_is_watched_that_is_not_used() -> None:
    assert set(DIGESTS) == set(watched())


@pytest.mark.parametrize("ours", OVERRIDES, ids=lambda ours: ours.__name__)
def test_an_override_says_what_it_keeps_of_the_original(ours: type) -> None:
    theirs = OVERRIDES[ours]
    names = [name for name in vars(ours) if f"{theirs.__name__}.{name}" in overridden() and name != "__init__"]
    silent = [name for name in names if not inspect.getdoc(vars(ours)[name])]
    undocumented = [name for name in names if name not in silent and not vars(ours)[name].__doc__]
    assert silent == []
    assert undocumented == [], "the docstring is the original's"
