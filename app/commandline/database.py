"""The commands about the database: migrate, backup, restore, check, prune, forget."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from app.commandline import foreman
from app.commandline.cleaning import forget_user, prune_all
from app.commandline.refusals import explained
from app.domain.room import Policy
from app.parts import utc_now
from app.parts.money import wallet_of
from app.settings import InvalidSettings, Settings, read_settings
from app.store import Store, copies, wallet_check
from app.store.checking import LISTED, Result, check_database
from app.store.engines import open_engines, sole_owner
from app.store.migrating import migrate as migrate_database
from app.store.migrating import refuse_other_schema
from app.store.wallet_check import WalletCheck
from app.wallet.comparison import RECENT, Difference, compare

BATCH = 200
"""Escrows that one query reads for a comparison with the wallet."""

T = TypeVar("T")

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def migrate(
    contract: Annotated[
        bool, typer.Option(help="Once no process of the previous release runs: also write rows it cannot read.")
    ] = False,
) -> None:
    """Bring the database to the newest schema; the previous release can use it until --contract."""
    with explained():
        settings = read_settings()
        # `serve`, which honcho has started beside this, migrates an SQLite file.
        if not (foreman.runs_this() and settings.uses_sqlite):
            with sole_owner(settings.database_url):
                engines = open_engines(settings.database_url)
                migrate_database(engines.writer, contract=contract)
                engines.dispose()
    if foreman.runs_this():
        foreman.stay()


@cli.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Path of the copy; an older copy of that name is replaced")],
) -> None:
    """Write a consistent, verified copy of an SQLite queue, also while it runs."""
    with explained():
        settings = read_settings()
        if not settings.uses_sqlite:
            raise InvalidSettings("backup is for SQLite; on PostgreSQL use pg_dump, say: pg_dump -Fc -f FILE DATABASE")
        copies.backup(settings.database_url, file)
    print(f"Wrote {file}", file=sys.stderr)


@cli.command()
def restore(
    file: Annotated[
        Path | None, typer.Argument(help="A copy that backup wrote. On PostgreSQL none: run pg_restore before")
    ] = None,
) -> None:
    """Put a copy in the place of the queue's file, and begin a new history."""
    with explained():
        settings = read_settings()
        if settings.uses_sqlite:
            if file is None:
                raise InvalidSettings("restore needs the FILE that backup wrote")
            with sole_owner(settings.database_url):
                replaced = copies.restore(settings.database_url, file, utc_now())
            kept = "" if replaced is None else f"; the replaced file is {replaced}"
            print(f"Restored {file}{kept}", file=sys.stderr)
            return
        if file is not None:
            raise InvalidSettings("on PostgreSQL restore FILE with pg_restore, then run: python -m app restore")
        engines = open_engines(settings.database_url)
        migrate_database(engines.writer, restored=True)
        engines.dispose()
        print("Began a new history: a new epoch, and a log that continues after the lost part", file=sys.stderr)


@cli.command()
def check(
    wallet: Annotated[
        bool, typer.Option("--wallet", help="Also ask the wallet about every open or recent escrow")
    ] = False,
) -> None:
    """Check the whole database against the rules; exit code 1 if anything is wrong."""
    with explained():
        settings = read_settings()
        with _store(settings) as store:
            results = list(check_database(store))
            if wallet:
                results.append(asyncio.run(_compare_with_wallet(settings, store)))
    report(results)
    if any(result.wrong for result in results):
        raise typer.Exit(1)


@cli.command()
def prune(
    older_than: Annotated[
        int | None, typer.Option(help="Least number of days since an item ended; default: RETENTION_DAYS", min=0)
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Append the items to this file, one JSON object a line")] = None,
) -> None:
    """Move ended items, their events, answers and done wallet operations out, in small batches, also while it runs."""
    with explained():
        settings = read_settings()
        days = settings.retention_days if older_than is None else older_than
        if older_than is None and not days:
            raise InvalidSettings("the age is missing: give --older-than DAYS or set RETENTION_DAYS")
        with _store(settings) as store:
            number = prune_all(store, utc_now() - timedelta(days=days), export)
    print(f"Moved {number:,} items out", file=sys.stderr)


@cli.command()
def forget(user: Annotated[str, typer.Argument(help="A userId")]) -> None:
    """Make a user unrecognisable: replace the id and empty descriptions and metadata, everywhere."""
    with explained():
        settings = read_settings()
        with _store(settings) as store:
            number = forget_user(store, user)
    print(f"Forgot the user in {number:,} items", file=sys.stderr)


@contextmanager
def _store(settings: Settings) -> Iterator[Store]:
    """Opens the queue's database, and neither creates nor migrates it."""
    if settings.uses_sqlite:
        copies.database_path(settings.database_url)
    engines = open_engines(settings.database_url)
    try:
        refuse_other_schema(engines.writer)
        yield Store(engines, Policy())
    finally:
        engines.dispose()


async def _compare_with_wallet(settings: Settings, store: Store) -> Result:
    """Compares every open or recently changed escrow, and records the result for the service's metrics."""
    examined, unanswered, differences, after = 0, 0, list[Difference](), ""
    since = utc_now() - RECENT

    async def run(query: Callable[[Connection], T]) -> T:
        with store.reading() as connection:
            return query(connection)

    async with wallet_of(settings, store.engines, utc_now) as wallet:
        while True:
            step = await compare(run, wallet, since=since, after=after, at_most=BATCH)
            examined += step.examined
            unanswered += step.unanswered
            differences += step.differences
            if step.after is None:
                break
            after = step.after
    if unanswered < examined or not examined:
        check = WalletCheck(at=utc_now(), examined=examined, different=len(differences))
        with store.engines.patient_writer.begin() as connection:
            wallet_check.record(connection, check)
    findings = [
        f"item {each.item.item_id}, escrow {each.item.escrow_transaction_id}: {each.problem}"
        for each in differences[:LISTED]
    ]
    return Result(rule="wallet", examined=examined, wrong=len(differences), findings=findings)


def report(results: list[Result]) -> None:
    """Print a table of the rules, and below it one line for each finding."""
    table = Table("rule", "examined", "wrong", box=None, pad_edge=False)
    for result in results:
        table.add_row(result.rule, f"{result.examined:,}", f"{result.wrong:,}")
    console = Console(width=100, highlight=False)
    console.print(table)
    for result in results:
        for finding in result.findings:
            console.print(f"{result.rule}: {finding}", soft_wrap=True, markup=False)
        if result.wrong > len(result.findings):
            console.print(f"{result.rule}: and {result.wrong - len(result.findings):,} more")
