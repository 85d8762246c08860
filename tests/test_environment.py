import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser
from redis import Redis

from tests.support import environment

ROOT = Path(__file__).parent.parent


def test_postgres_gives_each_test_an_empty_database(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE nothing_else_is_here (id int)")
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert tables == [("nothing_else_is_here",)]


def test_a_database_is_gone_after_its_test_even_if_somebody_is_connected(postgres_server: str) -> None:
    with environment.database(postgres_server) as url:
        connection = psycopg.connect(url)
        name = connection.info.dbname
    connection.close()
    with psycopg.connect(postgres_server) as connection:
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None


def test_redis_answers_and_knows_sharded_channels(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        assert redis.ping()
        assert redis.spublish("queue-test", "hello") == 0


def test_the_browser_runs_script(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<p>before</p><script>document.querySelector('p').textContent = 'after'</script>")
    assert page.inner_text("p") == "after"
    page.close()


@pytest.mark.parametrize(("ci", "exit_code"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_the_run_in_ci_only(tmp_path: Path, ci: str, exit_code: int) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_two.py").write_text(
        "import pytest\n\ndef test_good(): pass\n\ndef test_skipped(): pytest.skip('no browser')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-c",
        str(tmp_path / "pytest.ini"),
        str(tmp_path),
    ]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, "CI": ci}, capture_output=True, text=True)
    assert "1 passed, 1 skipped" in run.stdout
    assert run.returncode == exit_code
