"""A ledger in memory for the tests of the sandbox wallet, with the same transactions as in a file."""

from sqlalchemy import Engine, StaticPool, create_engine, event
from sqlmodel import SQLModel

from app.sandbox.ledger import Hold, Ledger, Resolution
from app.sandbox.tables import SANDBOX_TABLES


def memory_engine() -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", lambda connection, record: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    create_tables(engine)
    return engine


def create_tables(engine: Engine) -> None:
    SQLModel.metadata.create_all(engine, tables=SANDBOX_TABLES)


def hold(ledger: Ledger, user_id: str = "viewer-1", amount: int = 100, *, key: str = "hold-1") -> str:
    order = Hold(user_id=user_id, amount=amount, reason="a spin", queue_item_id=None, feature_type="wheel")
    return ledger.hold(order, key=key).escrow_id


def resolution(
    escrow_id: str, settle: int, refund: int, *, model_id: str = "star", user_id: str | None = None
) -> Resolution:
    return Resolution(
        escrow_id=escrow_id,
        model_id=model_id if settle else None,
        user_id=user_id,
        settle=settle,
        refund=refund,
        queue_item_id="item-1",
        reason="because",
    )
