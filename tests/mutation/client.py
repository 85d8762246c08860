"""Mutants of the browser client's pure part, made and judged by Stryker: `reduce` and the functions that it uses."""

import json
import tempfile
from pathlib import Path

from tests.client import folder as client
from tests.mutation.runner import Result
from tests.support import environment, node_tools

MODULE = Path("static/queue-client.js")
STRYKER = ("@stryker-mutator/core@8.7.1",)
"""The last release that needs nothing newer than Debian's Node 18."""
NOTICED = ("Killed", "Timeout", "CompileError", "RuntimeError")


def run() -> Result:
    """The mutants between the first state and the class, and those that the tests of `tests/client` do not notice."""
    npm = environment.npm(lambda line: None)
    packages = node_tools.installed(npm, STRYKER)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        client.lay_out(folder)
        (folder / "node_modules").symlink_to(packages / "node_modules")
        (folder / "stryker.json").write_text(json.dumps(_configuration()))
        done = node_tools.run(packages, "stryker", "run", "stryker.json", cwd=folder)
        if done.returncode != 0:
            raise RuntimeError(done.stdout[-2000:] + done.stderr)
        report = json.loads((folder / "report.json").read_text())
    (file,) = report["files"].values()
    lines = file["source"].splitlines()
    survivors = [_key(mutant, lines) for mutant in file["mutants"] if mutant["status"] not in NOTICED]
    return Result(MODULE, len(file["mutants"]), survivors)


def _configuration() -> dict[str, object]:
    lines = MODULE.read_text().splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line.startswith("export const emptyState"))
    last = next(number for number, line in enumerate(lines, 1) if line.startswith("export class")) - 1
    return {
        "mutate": [f"{MODULE}:{first}-{last}"],
        "testRunner": "command",
        "commandRunner": {"command": f"node {client.TESTS.name}"},
        "concurrency": 1,
        "reporters": ["json"],
        "jsonReporter": {"fileName": "report.json"},
    }


def _key(mutant: dict[str, object], lines: list[str]) -> str:
    start = mutant["location"]["start"]["line"]  # type: ignore[index]
    return f"{lines[start - 1].strip()}: {mutant['mutatorName']} -> {' '.join(str(mutant['replacement']).split())}"
