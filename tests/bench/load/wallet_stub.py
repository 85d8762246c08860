"""A wallet that confirms every settlement and refund at once, so that the mixed load measures the queue alone.

Run as `wallet_stub.py PORT`. Keep-alive HTTP over bare asyncio.
"""

import asyncio
import json
import re
import sys
from typing import Any

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def receipt(path: bytes, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to an order, as done: the amounts of that kind of order and no others."""
    answer: dict[str, Any] = {"transactionId": f"t-{body.get('queueItemId')}", "timestamp": "2026-01-01T00:00:00.000Z"}
    if not path.endswith(b"/refund"):
        answer |= {"settledAmount": body.get("settleAmount", body.get("amount")), "modelEarnedBalance": 0}
    if not path.endswith(b"/settle"):
        answer |= {"refundedAmount": body.get("refundAmount", body.get("amount")), "userAvailableBalance": 0}
    return answer


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        found = LENGTH.search(head)
        body = json.loads(await reader.readexactly(int(found[1])) if found else b"{}")
        answer = json.dumps(receipt(head.split(b" ", 2)[1], body)).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
        )


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
