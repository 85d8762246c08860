"""Writes the npm package into a new folder: the modules as the service sends them, and their types.

PYTHONPATH=. .venv/bin/python .ci/npm_package.py FOLDER
"""

import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

from app.api.pages import STATIC
from app.api.site import MODULES, Site
from app.specs import typescript

ROOT = Path(__file__).parents[1]
TYPES = "protocol.d.ts"
"""Generated; the types of each module are beside it."""


def write(folder: Path) -> None:
    """`folder` is created; FileExistsError if it is there."""
    folder.mkdir(parents=True)
    site = Site(STATIC)
    for module in MODULES:
        (folder / module).write_bytes(site.files[f"v1/{module}"].body)
    for path in (STATIC / "v1").iterdir():
        shutil.copy(path, folder)
    shutil.copy(ROOT / "LICENSE", folder)
    (folder / TYPES).write_text(typescript.declarations(), encoding="utf-8")
    (folder / "package.json").write_text(json.dumps(manifest(), indent=2) + "\n", encoding="utf-8")


def manifest() -> dict[str, Any]:
    """package.json. Version, licence and authors are the release's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    client, element = MODULES
    return {
        "name": project["name"],
        "version": project["version"],
        "description": "The live client of the Performance Queue, and the element that shows a viewer's place.",
        "license": project["license"],
        "author": project["authors"][0]["name"],
        "keywords": ["queue", "live-streaming", "websocket", "custom-element", "web-component"],
        "type": "module",
        "exports": {
            ".": _module(client),
            "./position-element": _module(element),
            "./package.json": "./package.json",
        },
        "types": f"./{_types_of(client)}",
        "sideEffects": [f"./{element}"],
        "engines": {"node": ">=22"},
    }


def _module(name: str) -> dict[str, str]:
    return {"types": f"./{_types_of(name)}", "default": f"./{name}"}


def _types_of(module: str) -> str:
    return f"{module.removesuffix('.js')}.d.ts"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
