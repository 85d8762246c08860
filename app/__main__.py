"""The command line: `python -m app COMMAND`."""

import logging
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated

import typer
import uvicorn
from rich.console import Console

from app import logs
from app.access import auth
from app.commandline import database, foreman
from app.commandline.refusals import explained
from app.domain.command import Role
from app.main import create_app
from app.parts import utc_now
from app.parts.assembly import check_surroundings
from app.sandbox import create_sandbox
from app.sandbox.faults import Faults
from app.server import descriptors
from app.server.listening import bound, url
from app.server.run import serve as run_server
from app.server.run import serve_workers
from app.settings import InvalidSettings, Settings, read_settings, vapid_key
from app.simulate import demo as demonstration
from app.simulate.demo import TOKEN_SECONDS, Demo
from app.simulate.escrow_client import EscrowClient
from app.simulate.run import AFTERWARDS_SECONDS, Plan, Refused, Run
from app.simulate.screen import run_in_terminal
from app.store.engines import open_engines, sole_owner
from app.store.migrating import migrate as migrate_database
from app.store.migrating import refuse_other_schema

TOKEN_TTL_SECONDS = 3600
FILES = Path(__file__).parent / "metrics" / "files"

log = logging.getLogger("app.main")

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
cli.add_typer(database.cli)


@cli.command()
def serve() -> None:
    """Run the service, configured by the environment."""
    with explained():
        settings = read_settings()
        logs.configure(settings.environment)
        descriptors.raise_limit()
        with bound(settings.host, settings.port) as sockets:
            if foreman.runs_this() and not settings.uses_sqlite:
                foreman.wait_for_schema(settings)
            if settings.web_concurrency > 1:
                check_surroundings(settings)
                _announce(settings, sockets)
                serve_workers("app.main:worker", settings, sockets)
                return
            with sole_owner(settings.database_url):
                app = create_app(settings)
                _announce(settings, sockets)
                run_server(app, settings, sockets)


def _announce(settings: Settings, sockets: Sequence[socket.socket]) -> None:
    if settings.is_public_development:
        log.warning("development settings on a public address: anybody can sign tokens; set ENVIRONMENT=production")
    print(f"Performance Queue on {url(sockets, settings.host)}", file=sys.stderr)
    each = " in each worker" if settings.web_concurrency > 1 else ""
    print(f"Places for {descriptors.capacity()}{each}", file=sys.stderr)


@cli.command()
def dashboard() -> None:
    """Print a Grafana dashboard of the metrics, ready to import."""
    print((FILES / "dashboard.json").read_text(), end="")


@cli.command()
def alerts() -> None:
    """Print alert rules for Prometheus."""
    print((FILES / "alerts.yml").read_text(), end="")


@cli.command()
def demo(
    keep: Annotated[bool, typer.Option(help="Keep the database, demo.db, and continue with it next time.")] = False,
) -> None:
    """Run the service with a sandbox wallet and a few lively rooms, and print links to their pages."""
    console = Console()
    with explained(), demonstration.database(keep=keep) as database_url:
        settings = demonstration.demo_settings(database_url, console.print)
        logs.configure(settings.environment)
        # The demo's wallet sometimes fails on purpose. The admin page shows it; log lines would hide the links.
        logging.getLogger("app").setLevel(logging.ERROR)
        with sole_owner(settings.database_url):
            app = create_app(settings)
            people = Demo(
                settings,
                lambda role, sub: _sign(settings, role, sub, None, TOKEN_SECONDS),
                utc_now,
                console,
            )
            people.join(app)
            with bound(settings.host, settings.port) as sockets:
                run_server(app, settings, sockets)
            console.print(f"Stopped. {people.books()}".rstrip(), soft_wrap=True, highlight=False)


@cli.command()
def sandbox(
    port: Annotated[int, typer.Option(help="Port to listen on", min=1, max=65535)] = 8001,
    database_url: Annotated[
        str, typer.Option(help="URL of its ledger's database: sqlite:/// or postgresql://")
    ] = "sqlite:///wallet.db",
) -> None:
    """Run the sandbox wallet as a separate service. It refuses unknown escrows; PUT /faults makes it fail."""
    with explained():
        settings = read_settings(database_url=database_url, port=port)
        logs.configure(settings.environment)
        with bound(settings.host, port) as sockets, sole_owner(settings.database_url):
            engines = open_engines(settings.database_url)
            (migrate_database if settings.uses_sqlite else refuse_other_schema)(engines.writer)
            wallet = create_sandbox(
                engines.writer,
                queue_secret=settings.wallet_queue_secret,
                api_token=settings.wallet_api_token,
                clock=utc_now,
                faults=Faults(Random()),
            )
            print(f"Sandbox wallet on {url(sockets, settings.host)}", file=sys.stderr)
            # It serves no WebSockets and keeps nothing in memory, so it may be stopped at once.
            config = uvicorn.Config(
                wallet, access_log=False, log_config=None, server_header=False, timeout_graceful_shutdown=1
            )
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets)


@cli.command()
def token(
    role: Annotated[Role, typer.Option(help="feature, viewer, performer, moderator or admin")],
    sub: Annotated[str, typer.Option(help="The token's subject: a sourceFeature, a userId or a performerId")],
    performer: Annotated[str | None, typer.Option(help="A moderator's room, by its performerId")] = None,
    ttl: Annotated[
        int | None,
        typer.Option(help="Seconds until it expires; by default 3600, or MAX_TOKEN_SECONDS if that is less", min=1),
    ] = None,
) -> None:
    """Print a signed token."""
    with explained():
        settings = read_settings()
        if settings.auth_jwks_url is not None:
            raise InvalidSettings("AUTH_JWKS_URL is set: the service accepts only tokens that the host site has signed")
        if ttl is None:
            ttl = min(TOKEN_TTL_SECONDS, settings.max_token_seconds or TOKEN_TTL_SECONDS)
        try:
            print(_sign(settings, role, sub, performer, ttl))
        except ValueError as problem:
            raise InvalidSettings(str(problem)) from None


@cli.command(name="vapid-key")
def make_vapid_key() -> None:
    """Print a new VAPID_PRIVATE_KEY for push notifications, and on standard error its public key for pages."""
    key = vapid_key.new_private_key()
    print(vapid_key.private_text(key))
    print(f"Public key: {vapid_key.public_text(key)}", file=sys.stderr)


@cli.command()
def simulate(
    url: Annotated[str, typer.Option(help="URL of the running server, for example http://127.0.0.1:8000")],
    performers: Annotated[int, typer.Option(help="Performers at their panels", min=1, max=1000)] = 5,
    viewers: Annotated[int, typer.Option(help="Sockets that watch", min=0, max=20_000)] = 50,
    rate: Annotated[float, typer.Option(help="Intakes a second, over all rooms", min=0.01, max=10_000)] = 5,
    seconds: Annotated[float, typer.Option(help="Length of the run in seconds", min=1, max=86_400)] = 30,
    speed: Annotated[float, typer.Option(help="Factor by which performances are shorter than declared", min=0.1)] = 5,
    seed: Annotated[int | None, typer.Option(help="Seed of an earlier run, to repeat its random choices")] = None,
    wallet_url: Annotated[
        str | None,
        typer.Option(help="Wallet where tokens are held first (the sandbox: URL/sandbox); else escrow ids are made up"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report here as well")] = None,
) -> None:
    """Drive a running server with features, performers and viewers, and check the messages that they receive."""
    with explained():
        settings = read_settings()
        if 0 < settings.max_token_seconds < seconds + AFTERWARDS_SECONDS:
            raise InvalidSettings("MAX_TOKEN_SECONDS is less than this run takes: its tokens would be refused")
    plan = Plan(
        url=url,
        performers=performers,
        viewers=viewers,
        rate=rate,
        seconds=seconds,
        speed=speed,
        seed=secrets.randbelow(2**32) if seed is None else seed,
    )
    run = Run(
        plan,
        lambda role, sub: _sign(settings, role, sub, None, round(seconds) + AFTERWARDS_SECONDS),
        None if wallet_url is None else partial(EscrowClient, wallet_url, settings.wallet_api_token),
    )
    try:
        raise typer.Exit(run_in_terminal(run, json_file))
    except Refused as problem:
        print(f"performance-queue: {problem}", file=sys.stderr)
        raise typer.Exit(2) from None


def _sign(settings: Settings, role: Role, sub: str, performer_id: str | None, ttl_seconds: int) -> str:
    return auth.sign(
        settings.auth_secret,
        role,
        sub,
        now=utc_now(),
        performer_id=performer_id,
        ttl_seconds=ttl_seconds,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        max_token_seconds=settings.max_token_seconds,
    )


if __name__ == "__main__":
    cli()
