"""The alert rules and the dashboard name only metrics that there are, and the guide names them all."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import Api

ROOT = Path(__file__).parents[2]
METRIC = re.compile(r"\b(?:queue|process)_[a-z_]+\b")


def printed(command: str) -> str:
    done = subprocess.run([sys.executable, "-m", "app", command], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


async def test_every_metric_that_is_asked_for_is_there(api: Api, performer_id: str) -> None:
    await api.intake(performer_id)
    async with api.server.live(performer_id) as live:
        await live.until("snapshot")
    text = (await api.get("/metrics")).text
    known = set(METRIC.findall(text))
    expressions = re.findall(r"expr: (.*)", printed("alerts"))
    expressions += [
        target["expr"] for panel in json.loads(printed("dashboard"))["panels"] for target in panel["targets"]
    ]
    asked = {name for expression in expressions for name in METRIC.findall(expression)}
    assert len(asked) >= 12
    assert asked - known == set()


async def test_the_guide_has_a_row_for_every_metric_and_for_no_other(api: Api) -> None:
    text = (await api.get("/metrics")).text
    shown = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    # `python_info` and the like would be of the client library, which nobody asked for.
    assert all(name.startswith(("queue_", "process_")) for name in shown)
    guide = (ROOT / "static" / "docs" / "guides" / "operate.md").read_text()
    described = re.findall(r"^\| `((?:queue|process)_\w+)` \|", guide, re.MULTILINE)
    assert sorted(described) == sorted(shown)
