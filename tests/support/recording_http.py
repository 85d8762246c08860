"""An HTTP server on loopback that records requests and gives the answers of a test."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    path: str
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


@dataclass(kw_only=True)
class Recording:
    url: str
    received: list[Received] = field(default_factory=list)


@contextmanager
def recording(answer: Callable[[Received], tuple[int, bytes]]) -> Iterator[Recording]:
    """Run the server inside the block. `answer` returns the status and body for a POST."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got = Received(path=self.path, headers=headers, body=body)
            record.received.append(got)
            status, content = answer(got)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    record = Recording(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, name="recording", daemon=True)
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
