"""The alert rules and the dashboard name only existing metrics, and the guide names them all."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import Api

ROOT = Path(__file__).parents[2]
METRIC = re.compile(r"\b(?:queue|process)_[a-z_]+\b")


def printed(command: str) -> str:
    done = subprocess.run([sys.executable, "-m", "app", command], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in json.loads(printed("dashboard"))["panels"] for target in panel["targets"]]


def check_rules(promtool: Path, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, timeout=60)


def test_prometheus_takes_the_alert_rules(promtool: Path, tmp_path: Path) -> None:
    file = tmp_path / "alerts.yml"
    file.write_text(printed("alerts"))
    done = check_rules(promtool, file)
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {printed('alerts').count('- alert:')} rules found" in done.stdout


def test_prometheus_accepts_every_query_of_the_dashboard(promtool: Path, tmp_path: Path) -> None:
    expressions = dashboard_expressions()
    rules = [{"record": f"queue:panel{number}", "expr": each} for number, each in enumerate(expressions)]
    file = tmp_path / "questions.yml"
    # JSON is YAML.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = check_rules(promtool, file)
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(expressions)} rules found" in done.stdout


def test_an_invalid_query_is_found(promtool: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yml"
    rule = {"record": "queue:wrong", "expr": "sum by (status (queue_items)"}
    file.write_text(json.dumps({"groups": [{"name": "wrong", "rules": [rule]}]}))
    assert check_rules(promtool, file).returncode != 0


@pytest.mark.parametrize("parked", [0, 1])
def test_a_parked_webhook_endpoint_raises_an_alarm(promtool: Path, tmp_path: Path, parked: int) -> None:
    (tmp_path / "alerts.yml").write_text(printed("alerts"))
    series = {"series": 'queue_webhook_endpoints{status="parked"}', "values": f"{parked}x10"}
    alarm = {
        "exp_labels": {"severity": "warning"},
        "exp_annotations": {"summary": "A webhook endpoint is parked: it gets no deliveries until it is resumed."},
    }
    expected = {"eval_time": "10m", "alertname": "QueueWebhookParked", "exp_alerts": [alarm] * parked}
    test = {"interval": "1m", "input_series": [series], "alert_rule_test": [expected]}
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": ["alerts.yml"], "tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_are_known_by_their_ids_and_lie_beside_each_other() -> None:
    panels = json.loads(printed("dashboard"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)


async def test_prometheus_accepts_the_metrics_text(api: Api, promtool: Path, performer_id: str) -> None:
    await api.intake(performer_id)
    shown = (await api.get("/metrics")).text

    def check() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([promtool, "check", "metrics"], input=shown, capture_output=True, text=True, timeout=60)

    done = await asyncio.to_thread(check)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_every_metric_that_is_asked_for_is_there(api: Api, performer_id: str) -> None:
    await api.intake(performer_id)
    async with api.server.live(performer_id) as live:
        await live.until("snapshot")
    text = (await api.get("/metrics")).text
    known = set(METRIC.findall(text))
    expressions = [*re.findall(r"expr: (.*)", printed("alerts")), *dashboard_expressions()]
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
