"""The browser client's state of a room, computed by Node without a browser."""

import subprocess
from pathlib import Path

from tests.client import folder


def test_each_frame_leads_to_the_expected_state(node: Path, tmp_path: Path) -> None:
    folder.lay_out(tmp_path)
    done = subprocess.run([node, folder.TESTS.name], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
