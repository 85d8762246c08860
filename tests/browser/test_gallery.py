"""The gallery takes a picture of a state at every size and in both themes."""

from pathlib import Path

from playwright.sync_api import Browser

from tests.browser import gallery
from tests.browser.test_accessibility import SIZES, STATES, THEMES

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_state_is_taken_at_every_size_in_both_themes(browser: Browser, tmp_path: Path) -> None:
    (front,) = (state for state in STATES if gallery.name_of(state) == "front")
    names = gallery.take(browser, tmp_path, [front])
    assert len(names) == len(SIZES) * len(THEMES)
    pictures = {(tmp_path / name).read_bytes() for name in names}
    assert len(pictures) == len(names), "no two alike"
    assert all(picture.startswith(PNG) for picture in pictures)
    assert all(f'src="{name}"' in gallery.index(names) for name in names)
