"""The npm package, built and installed as a site does it; its types agree with the modules and with AsyncAPI."""

import json
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from anyio import run_process, to_thread

from app.api.pages import STATIC
from app.specs import asyncapi, typescript
from tests.client.folder import lay_out
from tests.specs.test_clients import CLIENTS, environment, succeeded
from tests.support.node_tools import installed, run
from tests.support.server import Api, Server

ROOT = Path(__file__).parents[2]
COMPILER = ("typescript@5.9.3", "@types/node@20")


@pytest.fixture(scope="module")
def compiler(npm: Path) -> Path:
    return installed(npm, COMPILER)


@pytest.fixture(scope="module")
def tarball(npm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built as CI builds it."""
    folder = tmp_path_factory.mktemp("package")
    done = subprocess.run([ROOT / ".ci/npm", str(folder)], capture_output=True, text=True, timeout=60)
    return folder / succeeded(done).strip()


@pytest.fixture
def site(tarball: Path, npm: Path, compiler: Path, tmp_path: Path) -> Path:
    """A fresh folder in which the package is installed, with the two programs that use it."""
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    install = [str(npm), "install", "--offline", "--no-audit", "--no-fund", str(tarball)]
    succeeded(subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=60))
    for path in (CLIENTS / "package").iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "types").symlink_to(compiler / "node_modules/@types")
    return tmp_path


def compiled(compiler: Path, site: Path) -> None:
    """Compile a site's programs with the package's types."""
    succeeded(run(compiler, "tsc", "-p", ".", cwd=site))


async def test_the_installed_package_compiles_with_a_site_and_works_in_node(
    site: Path, compiler: Path, server: Server, api: Api
) -> None:
    await to_thread.run_sync(compiled, compiler, site)
    known = environment(server)
    item = await api.intake(known["PERFORMER_ID"], userId="ada", title="A song")
    # Before Node 22 a WebSocket is there if it is asked for.
    node = ["node", "--experimental-websocket", "out/consumer.js"]
    done = await run_process(node, cwd=site, env={**known, "ITEM": item["itemId"]}, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {
        "own": ["A song"],
        "depth": 1,
        "started": "started",
        "ended": False,
        "refused": "FORBIDDEN",
        "userId": "ada",
        "first": "connecting",
        "pending": 0,
    }


async def test_the_package_is_of_this_release_and_has_the_modules_of_the_service(tarball: Path, api: Api) -> None:
    with tarfile.open(tarball) as archive:
        files = {name.removeprefix("package/"): _read(archive, name) for name in archive.getnames()}
    manifest = json.loads(files.pop("package.json"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for field in ("name", "version", "license"):
        assert manifest[field] == project[field]
    assert files.pop("LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert {"queue-client.js", "position-element.js", "protocol.d.ts", "README.md"} < set(files)
    for name, body in files.items():
        response = await api.get(f"/static/v1/{name}")
        assert response.status_code == 200
        assert (response.content, response.headers["Access-Control-Allow-Origin"]) == (body, "*")
    named = re.findall(r'"\./([\w.-]+\.\w+)"', json.dumps(manifest))
    assert set(named) <= {*files, "package.json"}


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


def test_every_shape_and_frame_of_asyncapi_has_a_type() -> None:
    document = asyncapi.document()
    declared = typescript.declarations()
    for name, schema in document["components"]["schemas"].items():
        found = re.search(
            rf"^export (?:interface {name} \{{(.*?)^\}}|type {name} =)", declared, re.MULTILINE | re.DOTALL
        )
        assert found, name
        assert re.findall(r"^  (\w+)\??:", found[1] or "", re.MULTILINE) == [*schema.get("properties", ())]
    frames = re.findall(r"^export type (?:Server|Client)Frame = (.*);$", declared, re.MULTILINE)
    payloads = [
        message["payload"]["$ref"].rpartition("/")[2] for message in document["components"]["messages"].values()
    ]
    assert sorted(" | ".join(frames).split(" | ")) == sorted(payloads)


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "date"}, {"allOf": [{}, {}]}])
def test_a_schema_that_has_no_exact_type_is_refused(schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"components": {"schemas": {"Odd": schema}}}
    monkeypatch.setattr(asyncapi, "document", lambda: document)
    with pytest.raises(ValueError, match="no TypeScript"):
        typescript.declarations()


def declared(types: str, name: str) -> set[str]:
    """The members of a class or interface in a declaration file."""
    (body,) = re.findall(
        rf"^export (?:declare class|interface) {name}\b.*?\{{\n(.*?)^\}}", types, re.MULTILINE | re.DOTALL
    )
    return set(re.findall(r'^  (?:readonly )?"?([\w-]+)"?\??[(<:]', body, re.MULTILINE))


def test_the_types_of_the_client_name_its_members_its_events_and_its_exports(node: Path, tmp_path: Path) -> None:
    types = (STATIC / "v1/queue-client.d.ts").read_text()
    lay_out(tmp_path)
    (tmp_path / "members.js").write_text("""
      import * as module from "./static/queue-client.js";
      const client = new module.QueueClient({ performerId: "mira", server: "http://127.0.0.1" });
      const own = [...Object.keys(client), ...Object.getOwnPropertyNames(module.QueueClient.prototype)];
      console.log(JSON.stringify([own, Object.keys(module)]));
    """)
    done = subprocess.run([node, "members.js"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    members, exports = json.loads(succeeded(done))
    inherited = {"addEventListener", "removeEventListener"}
    assert declared(types, "QueueClient") - inherited == set(members)
    assert set(re.findall(r"^export declare (?:class|function|const) (\w+)", types, re.MULTILINE)) == set(exports)
    emitted = set(re.findall(r'#emit\("([\w-]+)"', (STATIC / "queue-client.js").read_text()))
    assert declared(types, "QueueClientEventMap") == emitted


def test_the_types_of_the_element_name_its_properties_and_its_events() -> None:
    types = (STATIC / "v1/position-element.d.ts").read_text()
    source = (STATIC / "position-element.js").read_text()
    accessors = set(re.findall(r"^  (?:get|set) (\w+)\(", source, re.MULTILINE))
    assert declared(types, "PerformanceQueuePosition") - {"addEventListener", "removeEventListener"} == accessors
    assert declared(types, "PositionElementEventMap") == set(re.findall(r'#emit\("([\w-]+)"', source))
