"""The parts that talk to the wallet, the built-in sandbox among them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from random import Random

import httpx2
from starlette.routing import BaseRoute, Mount

from app.parts.foundation import Foundation
from app.sandbox import create_sandbox
from app.sandbox.faults import Faults
from app.settings import SANDBOX, Settings, WalletKeyFormat
from app.store.engines import Engines
from app.wallet.breaker import Breaker
from app.wallet.client import Wallet
from app.wallet.hold_checks import CHECKS_AT_ONCE, HoldChecks
from app.wallet.outbox import Outbox
from app.wallet.wallet_check import WalletChecks

WALLET_CONNECTIONS = 32
"""Connections of one wallet client. The outbox uses at most half of them; comparisons with the wallet use the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    wallet: Wallet
    sandbox_routes: Sequence[BaseRoute]
    """The routes of the built-in wallet, for features; empty if the wallet is another service."""
    outbox: Outbox
    hold_checks: HoldChecks | None
    wallet_checks: WalletChecks


def open_money(base: Foundation) -> Money:
    """The outbox and the checks of holds have separate wallet clients, so that a check delays no settlement."""
    settings = base.settings
    wallet_at, sandbox_routes = _wallets(settings, base.engines, base.own_clock)
    wallet = wallet_at(connections=WALLET_CONNECTIONS, observe=base.metrics.wallet_call)
    outbox = Outbox(
        lanes=base.lanes,
        queries=base.queries,
        wallet=wallet,
        breaker=Breaker(),
        clock=base.clock,
        random=Random(),
        max_attempts=settings.wallet_max_attempts,
        retry_base_seconds=settings.wallet_retry_base_seconds,
        retry_max_seconds=settings.wallet_retry_max_seconds,
        timeout_seconds=settings.wallet_timeout_seconds,
        tracer=base.tracer,
    )
    hold_checks = None
    if settings.wallet_verify_holds:
        client = wallet_at(connections=CHECKS_AT_ONCE, observe=base.metrics.wallet_call)
        hold_checks = HoldChecks(client, outbox.breaker, base.clock)
    wallet_checks = WalletChecks(
        queries=base.queries,
        lanes=base.lanes,
        wallet=wallet,
        breaker=outbox.breaker,
        clock=base.clock,
        seconds=settings.command_seconds,
    )
    return Money(
        wallet=wallet,
        sandbox_routes=sandbox_routes,
        outbox=outbox,
        hold_checks=hold_checks,
        wallet_checks=wallet_checks,
    )


def wallet_of(settings: Settings, engines: Engines, clock: Callable[[], datetime]) -> Wallet:
    """A wallet client for a command that runs beside the service."""
    return _wallets(settings, engines, clock)[0](connections=WALLET_CONNECTIONS)


def _wallets(
    settings: Settings, engines: Engines, clock: Callable[[], datetime]
) -> tuple[Callable[..., Wallet], list[BaseRoute]]:
    """A maker of wallet clients with `connections` each, and the routes of the built-in sandbox."""
    routes: list[BaseRoute] = []
    base_url, transport = settings.wallet_url, None
    if settings.wallet_url == SANDBOX:
        sandbox = create_sandbox(
            engines.patient_writer,
            queue_secret=settings.wallet_queue_secret,
            api_token=settings.wallet_api_token,
            clock=clock,
            faults=Faults(Random()),
            adopts_unknown_escrows=True,
        )
        base_url, transport = "http://sandbox", httpx2.ASGITransport(app=sandbox, raise_app_exceptions=False)
        routes.append(Mount("/sandbox", sandbox))
    wallet_at = partial(
        Wallet,
        base_url=base_url,
        api_token=settings.wallet_api_token,
        queue_secret=settings.wallet_queue_secret,
        timeout_seconds=settings.wallet_timeout_seconds,
        clock=clock,
        uuid_keys=settings.wallet_key_format is WalletKeyFormat.UUID,
        transport=transport,
    )
    return wallet_at, routes
