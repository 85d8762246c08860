"""Peer: uWebSockets through socketify, with its own publish and subscribe. Run as `socketify_fanout.py PORT`."""

import sys
from typing import Any

from socketify import App, AppListenOptions, CompressOptions, OpCode  # type: ignore[import-not-found]


def main(port: int) -> None:
    app = App()

    def joined(ws: Any) -> None:
        ws.subscribe("live")

    def published(ws: Any, message: Any, opcode: Any) -> None:
        app.publish("live", message, OpCode.TEXT)

    options = {"compression": CompressOptions.DISABLED, "idle_timeout": 120, "max_backpressure": 16 * 1024 * 1024}
    app.ws("/live", {**options, "open": joined})
    app.ws("/publish", {**options, "message": published})
    app.listen(AppListenOptions(port=port, host="127.0.0.1"), lambda config: None)
    app.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
