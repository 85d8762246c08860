"""The command line: `python -m app COMMAND`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from app import auth, logs
from app.command import Role
from app.main import create_app, utc_now
from app.serving import serve as run_server
from app.settings import InvalidSettings, Settings, read_settings
from app.store.engines import DatabaseRefusedError, open_engines, sole_owner
from app.store.migrating import migrate as migrate_database

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what is wrong with the surroundings into one line and exit code 2."""
    try:
        yield
    except (InvalidSettings, DatabaseRefusedError) as problem:
        print(f"performance-queue: {problem}", file=sys.stderr)
        raise typer.Exit(2) from None


@cli.command()
def serve() -> None:
    """Run the service, configured by the environment."""
    with _explained():
        settings = read_settings()
        logs.configure(settings.environment)
        with sole_owner(settings.database_url):
            app = create_app(settings)
            print(f"Performance Queue on http://{settings.host}:{settings.port}", file=sys.stderr)
            run_server(app, settings)


@cli.command()
def migrate(
    restored: Annotated[bool, typer.Option(help="The database was restored from a backup: start a new epoch.")] = False,
) -> None:
    """Bring the database to the newest schema."""
    with _explained():
        settings = read_settings()
        with sole_owner(settings.database_url):
            engines = open_engines(settings.database_url)
            migrate_database(engines.writer, restored=restored)
            engines.dispose()


@cli.command()
def token(
    role: Annotated[Role, typer.Option(help="feature, viewer, performer, moderator or admin")],
    sub: Annotated[str, typer.Option(help="Who it is for: a sourceFeature, a userId or a performerId")],
    performer: Annotated[str | None, typer.Option(help="A moderator's room")] = None,
    ttl: Annotated[int, typer.Option(help="Seconds it is valid", min=1)] = 3600,
) -> None:
    """Print a signed token."""
    with _explained():
        settings = read_settings()
        try:
            print(_sign(settings, role, sub, performer, ttl))
        except ValueError as problem:
            raise InvalidSettings(str(problem)) from None


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
    )


if __name__ == "__main__":
    cli()
