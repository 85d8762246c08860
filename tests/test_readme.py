"""The README against the code: its lists are complete and correct."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.domain.item import TRANSITIONS, Move, Status
from app.settings import DEVELOPMENT_AUTH_SECRET, DEVELOPMENT_WALLET_QUEUE_SECRET, Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found, f"the README has no section {heading!r}"
    return found[1]


def table(heading: str) -> list[list[str]]:
    """The cells of a section's table, its heading first."""
    rows = [line.strip("|").split("|") for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows if not row[0].startswith("---")]


def shown(name: str, default: Any) -> str:
    match default:
        case None:
            return "unset"
        case ():
            return "same origin" if name == "allowed_origins" else "none"
        case str() if default in (DEVELOPMENT_AUTH_SECRET, DEVELOPMENT_WALLET_QUEUE_SECRET):
            return "a development key"
        case bool():
            return str(default).lower()
        case tuple():
            return ",".join(map(str, default))
        case float():
            return f"{default:g}"
    return str(default)


def test_the_settings_table_has_every_variable_and_its_default() -> None:
    listed = [(row[0], row[1]) for row in table("Settings")[1:]]
    assert listed == [(name.upper(), shown(name, field.default)) for name, field in Settings.model_fields.items()]


def test_the_transition_table_is_the_codes() -> None:
    heading, *rows = table("An item's life")
    assert heading == ["status", *Move]
    listed = {
        status: {move: after for move, after in zip(heading[1:], cells, strict=True) if after != "–"}
        for status, *cells in rows
    }
    assert list(listed) == list(Status)
    assert listed == TRANSITIONS


def test_the_design_guide_names_every_room_and_none_that_is_not_there() -> None:
    text = (ROOT / "static/docs/guides/design.md").read_text()
    named = re.findall(r"`((?:app|static|tests)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    rooms = {f"app/{path.name}{'/' if path.is_dir() else ''}" for path in (ROOT / "app").glob("[!_.]*")}
    assert rooms - set(named) == {"app/py.typed"}


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("name", re.findall(r"`((?:\.ci/)?[\w-]+(?:\.txt|\.toml)|Procfile|LICENSE|\.ci/run)`", README))
def test_a_file_that_is_mentioned_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
