"""Runs programs for Node, which npm installs into a temporary folder that is kept for the next run."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import pytest

INSTALL_SECONDS = 100.0


def installed(npm: Path, packages: Sequence[str]) -> Path:
    """The folder whose `node_modules` has these packages, each written as npm takes it (name@version).

    Skips the test where npm cannot reach its registry, unless CI is set.
    """
    version = blake2b(" ".join(packages).encode(), digest_size=6).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"performance-queue-node-{os.getuid()}-{version}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            command = [str(npm), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact", *packages]
            (folder / "package.json").write_text('{"private": true}')
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
            if done.returncode != 0 and not os.environ.get("CI"):
                pytest.skip(f"npm could not install {', '.join(packages)}: {done.stderr[-300:]}")
            assert done.returncode == 0, done.stderr
            (folder / "complete").touch()
    return folder


def run(folder: Path, program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the folder's packages, with telemetry switched off."""
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "CI": "true"}
    return subprocess.run(
        [folder / "node_modules" / ".bin" / program, *arguments],
        cwd=cwd,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=110,
    )
