"""A folder in which Node runs the tests of the browser client: copies, because `static/` is no Node package."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = Path(__file__).with_name("reduce.test.mjs")


def lay_out(folder: Path) -> None:
    """Copy the client, the modules that it imports and its tests into `folder`."""
    (folder / "static").mkdir()
    shutil.copy(ROOT / "static" / "queue-client.js", folder / "static")
    shutil.copytree(ROOT / "static" / "lib", folder / "static" / "lib")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    shutil.copy(TESTS, folder)
