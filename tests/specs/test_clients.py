"""Other programs read the two documents: generated clients play an item's whole life, and linters find no problem."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.specs import asyncapi, openapi
from app.wire.encoding import encode
from tests.support.node_tools import installed, run
from tests.support.server import Server, fresh

CLIENTS = Path(__file__).parent / "clients"
GENERATORS = (
    "openapi-typescript@7.13.0",
    "openapi-fetch@0.17.0",
    "@hey-api/openapi-ts@0.95.0",
    "typescript@5.9.3",
    "@types/node@20",
)
LINTERS = ("@redocly/cli@2.77.0", "@stoplight/spectral-cli@6.16.3")


# Fixtures, because an installation takes longer than a test may.
@pytest.fixture(scope="module")
def generators(npm: Path) -> Path:
    return installed(npm, GENERATORS)


@pytest.fixture(scope="module")
def linters(npm: Path) -> Path:
    return installed(npm, LINTERS)


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A folder with both documents."""
    (tmp_path / "openapi.json").write_bytes(encode(openapi.document()))
    (tmp_path / "asyncapi.json").write_bytes(encode(asyncapi.document()))
    return tmp_path


def environment(server: Server) -> dict[str, str]:
    """The inputs of an item's life: the service's address, tokens, and unique names."""
    performer_id = fresh("star")
    return {
        "PATH": os.environ["PATH"],
        "URL": server.url,
        "FEATURE": server.feature(),
        "VIEWER": server.viewer("ada"),
        "PERFORMER": server.performer(performer_id),
        "PERFORMER_ID": performer_id,
        "KEY": fresh("key"),
    }


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def lives(described: Path, generators: Path, life: str, server: Server) -> None:
    """Compile a life and run it."""
    for file in (f"{life}.ts", "tsconfig.json"):
        shutil.copy(CLIENTS / file, described)
    (described / "node_modules").symlink_to(generators / "node_modules")
    succeeded(run(generators, "tsc", "-p", ".", cwd=described))
    node = ["node", f"out/{life}.js"]
    done = subprocess.run(node, cwd=described, env=environment(server), capture_output=True, text=True, timeout=60)
    assert succeeded(done) == "done\n"


def test_the_types_of_openapi_typescript_compile_and_do_an_items_whole_life(
    described: Path, generators: Path, server: Server
) -> None:
    succeeded(run(generators, "openapi-typescript", "openapi.json", "-o", "schema.ts", cwd=described))
    lives(described, generators, "openapi_fetch", server)


def test_the_client_of_hey_api_compiles_and_does_an_items_whole_life(
    described: Path, generators: Path, server: Server
) -> None:
    generate = ("-i", "openapi.json", "-o", "hey", "-c", "@hey-api/client-fetch")
    succeeded(run(generators, "openapi-ts", *generate, cwd=described))
    lives(described, generators, "hey_api", server)


def test_the_client_of_openapi_python_client_does_an_items_whole_life(described: Path, server: Server) -> None:
    scripts = Path(sys.executable).parent
    generate = ("generate", "--path", "openapi.json", "--output-path", "client", "--meta", "none", "--fail-on-warning")
    done = subprocess.run(
        [scripts / "openapi-python-client", *generate],
        cwd=described,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    succeeded(done)
    done = subprocess.run(
        [sys.executable, str(CLIENTS / "openapi_python_client.py")],
        cwd=described,
        env={**environment(server), "PYTHONPATH": str(described)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert succeeded(done) == "done\n"


def test_spectral_has_no_complaint(described: Path, linters: Path) -> None:
    (described / "rules.yaml").write_text('extends: ["spectral:oas", "spectral:asyncapi"]\n')
    for document in ("openapi.json", "asyncapi.json"):
        lint = ("lint", document, "--ruleset", "rules.yaml", "--fail-severity", "warn")
        succeeded(run(linters, "spectral", *lint, cwd=described))


def test_redocly_has_no_complaint(described: Path, linters: Path) -> None:
    for document in ("openapi.json", "asyncapi.json"):
        lint = ("lint", document, "--extends", "recommended", "--format", "json")
        found = json.loads(succeeded(run(linters, "redocly", *lint, cwd=described)))
        assert [(problem["ruleId"], problem["message"]) for problem in found["problems"]] == []
