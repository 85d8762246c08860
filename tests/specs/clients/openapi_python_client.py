"""An item's whole life with the client that openapi-python-client makes of openapi.json.

Run as a program beside the package `client` that has been generated.
"""

import importlib
import os
from typing import Any


def life(url: str, tokens: dict[str, str], performer_id: str, key: str) -> None:
    # The package is there only once it has been generated.
    client: Any = importlib.import_module("client")
    models: Any = importlib.import_module("client.models")
    feature, viewer, performer = (client.AuthenticatedClient(base_url=url, token=token) for token in tokens.values())

    def call(resource: str, name: str, caller: Any, *path: str, **arguments: Any) -> Any:
        operation: Any = importlib.import_module(f"client.api.{resource}.{name}")
        return operation.sync(*path, client=caller, **arguments)

    body = models.IntakeRequest(
        source_feature="wheel",
        source_event_id="spin-1",
        performer_id=performer_id,
        user_id="ada",
        escrow_transaction_id=f"escrow-{key}",
        tokens=10,
        title="A song",
        description="The one about the sea",
    )
    item = call("items", "intake", feature, body=body, idempotency_key=key)
    assert item.status == "created", item
    place = call("items", "position", viewer, item.item_id)
    assert (place.position, place.ahead) == (1, 0)
    assert call("items", "start", performer, item.item_id, body=models.EmptyRequest()).status == "started"
    assert call("items", "pause", performer, item.item_id, body=models.EmptyRequest()).paused
    assert not call("items", "resume", performer, item.item_id, body=models.EmptyRequest()).paused
    room = call("rooms", "queue", viewer, performer_id)
    assert (room.room.depth, len(room.items)) == (1, 1)
    done = call("items", "complete", performer, item.item_id, body=models.CompleteRequest(refund_tokens=4))
    assert (done.status, done.position) == ("finished", 0)
    assert call("items", "item", viewer, item.item_id).item_id == item.item_id
    trail = call("items", "transitions", viewer, item.item_id)
    assert [step.to for step in trail.transitions] == ["created", "started", "finished"]
    reason = models.RefundRequest(reason=models.Reason.USER_CANCELLED)
    assert call("items", "refund", viewer, item.item_id, body=reason).code == "FORBIDDEN"


if __name__ == "__main__":
    env = os.environ
    life(env["URL"], {name: env[name] for name in ("FEATURE", "VIEWER", "PERFORMER")}, env["PERFORMER_ID"], env["KEY"])
    print("done")
