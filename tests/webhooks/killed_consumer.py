"""A webhook consumer in a process of its own, whose end may come at any moment: `PORT LEDGER SURVIVES`.

It keeps each message in the file LEDGER before it answers, and leaves out what it has kept already, by `webhook-id`. It
prints its port. After SURVIVES new messages it is killed between keeping the next one and answering.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

import orjson


def serve(port: int, ledger: Path, survives: int) -> None:
    kept = {line.split()[0] for line in ledger.read_text().splitlines()}
    last = len(kept) + survives
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message_id = self.headers["webhook-id"]
            event = orjson.loads(self.rfile.read(int(self.headers["content-length"])))["data"]
            with lock, ledger.open("a") as lines:
                if message_id not in kept:
                    kept.add(message_id)
                    print(message_id, event["performerId"], event["version"], file=lines, flush=True)
                    if len(kept) > last:
                        os.kill(os.getpid(), signal.SIGKILL)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
