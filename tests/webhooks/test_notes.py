"""Notes about endpoints are bounded, however many endpoints there have been."""

from app.webhooks.notes import Notes


def test_beyond_the_bound_the_first_is_forgotten() -> None:
    notes: Notes[int] = Notes(3)
    for number in range(1000):
        notes.put(("feature", f"endpoint-{number}"), number)
        notes.put(("feature", f"endpoint-{number}"), number + 1)
        assert len(notes) <= 3
    assert [notes.get(("feature", f"endpoint-{number}")) for number in range(996, 1000)] == [None, 998, 999, 1000]


def test_a_dropped_value_leaves_nothing_behind() -> None:
    notes: Notes[int] = Notes()
    notes.put(("feature", "main"), 1)
    for _ in range(2):
        notes.drop(("feature", "main"))
    assert len(notes) == 0
    assert notes.get(("feature", "main")) is None
