"""Pictures of every page in every state, on a phone, a tablet and a desk, light and dark, to be looked at.

    .venv/bin/python -m tests.browser.gallery FOLDER [STATE …]

writes FOLDER/STATE-WIDTH-THEME.png, and index.html, which shows them all. Without a STATE: all of them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.test_accessibility import SETTLED, SIZES, STATES, THEMES, State
from tests.support import environment
from tests.support.browsing import Windows, room_of
from tests.support.server import serving

HEIGHT = "document.documentElement.scrollHeight"


def name_of(state: State) -> str:
    return state.__name__.strip("_")


def take(browser: Browser, folder: Path, states: Sequence[State]) -> list[str]:
    """Takes the pictures of these states; returns the files' names, which `folder` then has."""
    names: list[str] = []
    for state in states:
        windows = Windows(browser)
        opened: list[Page] = []

        def look(url: str, windows: Windows = windows, opened: list[Page] = opened) -> Page:
            opened.append(windows.open(url, size=SIZES[0], reduced_motion="reduce"))
            return opened[-1]

        with TemporaryDirectory() as database, serving(Path(database)) as server, room_of(server) as room:
            state(room, look)
            names += [name for page in opened for name in _pictures(page, folder, name_of(state))]
            windows.close()
    return names


def _pictures(page: Page, folder: Path, state: str) -> list[str]:
    names = []
    # A window as high as the page, so that what is fixed to its edges is at the page's; a dialog is of the window.
    is_whole = page.locator("dialog[open]").count() == 0
    for size in SIZES:
        page.set_viewport_size(size)
        if is_whole:
            page.set_viewport_size({**size, "height": max(size["height"], page.evaluate(HEIGHT))})
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.evaluate(SETTLED)
            names.append(f"{state}-{size['width']}-{theme}.png")
            page.screenshot(path=folder / names[-1])
    return names


def index(names: Sequence[str]) -> str:
    """A page that shows the pictures, six of a state in a row."""
    figures = "".join(
        f'<figure><a href="{name}"><img src="{name}" loading="lazy" alt=""></a><figcaption>{name}</figcaption></figure>'
        for name in names
    )
    style = "body{display:grid;grid-template-columns:repeat(6,1fr);gap:12px;font:12px sans-serif}figure{margin:0}"
    return f"<!doctype html><title>Gallery</title><style>{style}img{{width:100%;border:1px solid}}</style>{figures}"


def main(folder: Path, wanted: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    states = [state for state in STATES if not wanted or name_of(state) in wanted]
    program = environment.browser(lambda line: print(line, file=sys.stderr))
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program) as browser:
        names = take(browser, folder, states)
    (folder / "index.html").write_text(index(names), encoding="utf-8")
    print(f"{len(names)} pictures in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.browser.gallery", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("states", nargs="*", help="some of the pages' states; all without")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.states)
