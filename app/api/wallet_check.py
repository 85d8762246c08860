"""The comparison with the wallet over HTTP, for administrators."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.api.callers import Callers
from app.api.parameters import idempotency_key_of
from app.api.responses import json_response
from app.api.routing import route
from app.server.middleware import body_of
from app.wallet.comparison import Difference
from app.wallet.wallet_check import WalletChecks
from app.wire import admin_shapes
from app.wire.requests import WalletCheckRequest, read_body

PATH = "/v1/admin/wallet-check"


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletCheckRoutes:
    callers: Callers
    checks: WalletChecks

    async def last(self, request: Request) -> Response:
        rights.may_administer(await self.callers.principal(request))
        last = await self.checks.last()
        answer: admin_shapes.WalletCheckShape = {
            "comparedAt": None if last is None else last.at,
            "examined": None if last is None else last.examined,
            "different": None if last is None else last.different,
        }
        return json_response(answer)

    async def part(self, request: Request) -> Response:
        rights.may_administer(await self.callers.principal(request))
        body = read_body(WalletCheckRequest, await body_of(request))
        idempotency_key_of(request)  # refused if it cannot be one; a comparison that is repeated does no harm
        part = await self.checks.part(body.next)
        answer: admin_shapes.WalletCheckPart = {
            "differences": [_difference_shape(each) for each in part.differences],
            "examined": part.examined,
            "different": part.different,
            "next": None if part.next is None else str(part.next),
        }
        return json_response(answer)

    def routes(self) -> list[BaseRoute]:
        return [
            route(PATH, GET=self.last, POST=self.part),
        ]


def _difference_shape(difference: Difference) -> admin_shapes.EscrowDifferenceShape:
    item = difference.item
    return {
        "itemId": item.item_id,
        "performerId": item.performer_id,
        "escrowTransactionId": item.escrow_transaction_id,
        "problem": difference.problem,
    }
