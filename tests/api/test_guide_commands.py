"""Runs every command in the guides, here or in the test that its comment names, and checks every link."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.api.guides import ORDER
from app.settings import Settings
from tests.bench.scenarios import ALL
from tests.support.guides import EXAMPLES, TEXTS
from tests.support.server import Api, Server, fresh, ok, serving

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- (?P<about>\w+): (?P<name>\S+) -->\n)?```sh\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [
    (guide, *found.group("about", "name", "code")) for guide, text in TEXTS.items() for found in BLOCK.finditer(text)
]
RUN = {name: code for _, about, name, code in BLOCKS if about == "run"}
INLINE = sorted(
    {words for text in TEXTS.values() for words in re.findall(r"`(?:python -m app|performance-queue) ([^`]+)`", text)}
)
TOOL = re.compile(r"python -m (tests[a-z_.]*\b)((?: --?[a-z]+(?: [\w,.]+)?)*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def sh(code: str, folder: Path, **variables: str) -> str:
    """The output of a guide's block, run unchanged; `python` is the interpreter of these tests."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("python", "python3"):
        if not (programs / name).exists():
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("guide", "about", "name", "code"), BLOCKS)
def test_every_block_of_commands_says_which_test_runs_it(guide: str, about: str | None, name: str, code: str) -> None:
    assert about in ("run", "example", "tested"), f"{guide}: no test runs {code!r}"
    if about == "tested":
        assert (ROOT / name).is_file()


def test_the_blocks_that_are_run_here_are_these() -> None:
    assert set(RUN) == {"key", "vapid", "grant", "backup", "restore", "prune", "waits"}


def test_a_key_is_long_and_another_each_time(tmp_path: Path) -> None:
    keys = {sh(RUN["key"], tmp_path).strip() for _ in range(2)}
    assert len(keys) == 2
    assert min(map(len, keys)) >= 32


def test_with_the_two_settings_push_notifications_are_offered(tmp_path: Path) -> None:
    code = RUN["vapid"] + '\nprintf "%s %s" "$VAPID_PRIVATE_KEY" "$VAPID_SUBJECT"'
    key, subject = sh(code, tmp_path).split()
    settings = Settings(vapid_private_key=key, vapid_subject=subject)
    assert settings.vapid_subject == "mailto:ops@site.example"


async def test_a_token_is_signed_and_tokens_are_granted(server: Server, api: Api, tmp_path: Path) -> None:
    code = RUN["grant"].replace("http://127.0.0.1:8000", server.url) + '\nprintf "\\n%s" "$FEATURE_TOKEN"'
    *_, token = sh(code, tmp_path).splitlines()
    body = {"performerId": fresh("mira"), "userId": "ada"}
    answer = await api.send("POST", "/v1/queue/items", token, body)
    assert answer.status_code == 422, "the token is a feature's; the body is not whole"


async def test_a_copy_is_taken_put_back_and_pruned(tmp_path: Path) -> None:
    database = {"DATABASE_URL": f"sqlite:///{tmp_path}/queue.db"}
    performer_id = fresh("mira")
    with serving(tmp_path) as server:
        async with server.api() as api:
            await api.intake(performer_id)
            sh(RUN["backup"], tmp_path, **database)
            await api.intake(performer_id)
    sh(RUN["restore"], tmp_path, **database)
    with serving(tmp_path) as server:
        async with server.api() as api:
            depth = ok(await api.get(f"/v1/performers/{performer_id}/queue/depth", server.admin))["depth"]
            assert depth == 1
    sh(RUN["prune"], tmp_path, **database)


async def test_the_waits_of_a_site_are_scored_from_its_log(tmp_path: Path) -> None:
    performer_id = fresh("mira")
    with serving(tmp_path) as server:
        async with server.api() as api:
            for _ in range(3):
                await api.intake(performer_id)
            for _ in range(3):
                await api.command("complete", await api.start_next(performer_id))
        (tmp_path / "export.py").write_text(EXAMPLES["export.py"])
        printed = sh(RUN["waits"], tmp_path, QUEUE_URL=server.url, ADMIN_TOKEN=server.admin, COLUMNS="300")
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) >= 9
    # Three on arrival, and three when a place became another.
    assert re.search(rf"^ +{performer_id} +6 ", printed, re.MULTILINE), printed


@pytest.mark.parametrize("words", INLINE)
def test_a_command_that_a_sentence_names_is_there_with_its_options(words: str) -> None:
    name, *rest = words.split()
    shown = CliRunner().invoke(cli, [name, "--help"], env={"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"})
    assert shown.exit_code == 0
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown.output


def tools() -> dict[str, set[str]]:
    """The options with which the guides, CONTRIBUTING and the README name each of the tests' programs."""
    texts = [*TEXTS.values(), (ROOT / ".github/CONTRIBUTING.md").read_text(), (ROOT / "README.md").read_text()]
    named: dict[str, set[str]] = {}
    for text in texts:
        for name, options in TOOL.findall(" ".join(text.split())):
            named.setdefault(name, set()).update(word for word in options.split() if word.startswith("--"))
    return named


@pytest.mark.parametrize(("name", "options"), tools().items())
def test_a_program_of_the_tests_is_there_with_its_options(
    name: str, options: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in {"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    # A test of the program itself may have imported it; `runpy` warns of that.
    for module in (name, f"{name}.__main__"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__")
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert {option for option in options if not re.search(rf"{option}\b", shown)} == set()


def test_every_scenario_that_a_guide_names_is_one() -> None:
    text = " ".join(" ".join(TEXTS.values()).split())
    named = {name for names in re.findall(r"bench[^`]* --only ([a-z,]+)", text) for name in names.split(",")}
    assert named
    assert named - set(ALL) == set()


@pytest.mark.parametrize("guide", ORDER)
def test_every_link_is_to_a_guide_or_well_formed(guide: str) -> None:
    for target in LINK.findall(TEXTS[guide]):
        if re.fullmatch(r"(\./)?(\w+\.md)?(#[\w-]+)?", target):
            continue
        address = urlsplit(target)
        assert address.scheme == "https", target
        assert "." in (address.hostname or ""), target
