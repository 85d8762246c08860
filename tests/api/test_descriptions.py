"""How the descriptions are made: once, and never two of them at the same time."""

import time
from concurrent.futures import ThreadPoolExecutor

from app.api.descriptions import written


def test_two_descriptions_asked_for_at_once_are_made_one_after_the_other_and_once() -> None:
    spans: list[tuple[float, float]] = []

    def make(name: str) -> str:
        began = time.monotonic()
        time.sleep(0.05)
        spans.append((began, time.monotonic()))
        return name

    def first() -> str:
        return make("first")

    def second() -> str:
        return make("second")

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(written, (first, second, first, second)))
    assert answers == [b"first", b"second", b"first", b"second"]
    (_, ended), (began, _) = sorted(spans)
    assert ended <= began
