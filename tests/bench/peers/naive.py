"""The usual way: Starlette, one SQLModel session and one commit a request, on SQLite with synchronous FULL.

Run as `naive.py PORT DATABASE`. Same validation and the same checks (key, escrow, depth), two rows a request.
"""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import uuid_utils
import uvicorn
from sqlalchemy import event, func
from sqlmodel import Field, Session, SQLModel, create_engine, select
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.wire.requests import IntakeRequest, read_body


class NaiveItem(SQLModel, table=True):
    item_id: str = Field(primary_key=True)
    performer_id: str = Field(index=True)
    user_id: str = Field(index=True)
    source_feature: str
    source_event_id: str
    escrow_transaction_id: str = Field(unique=True)
    idempotency_key: str = Field(unique=True)
    tokens: int
    title: str
    description: str
    duration_seconds: int | None
    status: str
    created_at: datetime


class NaiveEvent(SQLModel, table=True):
    event_id: int | None = Field(default=None, primary_key=True)
    item_id: str = Field(index=True)
    name: str
    at: datetime


engine = create_engine(f"sqlite:///{sys.argv[2]}", connect_args={"timeout": 30})


@event.listens_for(engine, "connect")
def durable(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


# One writer at a time, as SQLite has it: without this the sessions meet "database is locked".
one_at_a_time = asyncio.Lock()


def store(body: IntakeRequest) -> tuple[dict[str, Any], int]:
    with Session(engine) as session:
        known = session.exec(select(NaiveItem).where(NaiveItem.idempotency_key == body.idempotency_key)).first()
        if known is not None:
            return known.model_dump(mode="json"), 200
        active = select(func.count()).where(NaiveItem.performer_id == body.performer_id, NaiveItem.status == "created")
        if session.exec(active).one() >= 1000:
            return {"code": "QUEUE_FULL"}, 409
        item = NaiveItem(
            **body.model_dump(exclude={"metadata", "queue_mode"}),
            item_id=str(uuid_utils.uuid7()),
            status="created",
            created_at=datetime.now(UTC),
        )
        session.add(item)
        session.add(NaiveEvent(item_id=item.item_id, name="queue.item.created", at=item.created_at))
        session.commit()
        session.refresh(item)
        return item.model_dump(mode="json"), 201


async def intake(request: Request) -> Response:
    body = read_body(IntakeRequest, await request.body())
    async with one_at_a_time:
        answer, status = await run_in_threadpool(store, body)
    return JSONResponse(answer, status)


if __name__ == "__main__":
    SQLModel.metadata.create_all(engine)
    app = Starlette(routes=[Route("/v1/queue/items", intake, methods=["POST"])])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, backlog=4096)
