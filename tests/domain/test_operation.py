"""An order to the wallet: when it is new, and while an attempt may be running."""

import pytest
from msgspec.structs import replace

from app.domain.operation import OperationStatus
from tests.support.builders import Stage, moment


def test_a_new_order_is_pending_and_neither_tried_nor_rejected() -> None:
    stage = Stage()
    item = stage.abandon(stage.intake())
    order = stage.operations[item.item_id]
    assert (order.status, order.attempts, order.rejected) == (OperationStatus.PENDING, 0, False)
    assert order.lease_until is None


@pytest.mark.parametrize(("seconds", "is_under_way"), [(59, True), (60, False), (61, False)])
def test_an_attempt_may_be_running_until_its_lease_ends(seconds: float, is_under_way: bool) -> None:
    stage = Stage()
    item = stage.abandon(stage.intake())
    claimed = replace(stage.operations[item.item_id], lease_until=moment(60))
    assert claimed.is_under_way(moment(seconds)) is is_under_way
