"""Text for a terminal."""

import pytest

from keras_rcnn.cli.tables import boxes_table, count, metrics_table, table
from keras_rcnn.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fig", "fig"),
        ("Bärchen 🐻\u200d❄️ क्षि", "Bärchen 🐻\u200d❄️ क्षि"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\x00\x07\x7f\x9b", r"a\x00\x07\x7f\x9b"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("a\u2028\u202eb\u2066", r"a\u2028\u202eb\u2066"),
        ("a\ud800", r"a\ud800"),
        (7, "7"),
    ],
)
def test_what_steers_a_terminal_is_shown_instead(text, shown):
    assert printable(text) == shown


def test_lines_can_stay():
    assert printable("a\nb\tc\r\x1b", lines=True) == "a\nb\tc\\r\\x1b"


def test_tables_are_as_wide_as_what_is_shown():
    lines = table(["name", "x"], [["a\n\x1b", "1"], ["b", "22"]], left=(0,)).splitlines()
    assert lines == ["name      x", r"a\n\x1b   1", "b        22"]
    found = {"names": ["\x1bA", "\x1bA"], "scores": [0.9, 0.8], "boxes": [[1, 2, 3, 4]] * 2}
    assert count(found) == r"2 objects (\x1bA 2)" and boxes_table(found).count(r"\x1bA") == 2
    assert r"\x1b[31mfig" in metrics_table({"bbox": {"AP": 0.5}, "per_class": {"\x1b[31mfig": {"AP": 0.5}}})
