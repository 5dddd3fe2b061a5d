"""The picture is the table's, and stays so through the page."""

from __future__ import annotations

import re
from pathlib import Path

import quality

DOCS = Path(__file__).parents[1] / "docs"


def test_picture_is_that_of_the_table() -> None:
    """Whoever changes the table or the drawing draws again: quality.py --page … --picture …"""
    table = list(quality.read_table((DOCS / "choosing.md").read_text()))
    assert len(table) == len(quality.WAYS)
    assert (DOCS / "choosing.svg").read_text() == quality.picture(table)


def test_table_is_read_as_written() -> None:
    """What is drawn again without models is what a measurement drew."""
    page = (DOCS / "choosing.md").read_text()
    assert quality.with_table(page, list(quality.read_table(page))) == page


def test_names_lie_apart() -> None:
    """No name hides another, and each stands once."""
    text = (DOCS / "choosing.svg").read_text()
    at = re.findall(r'class="name \w+" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)<', text)
    boxes = []
    for x, y, anchor, name in at:
        left = float(x) - (7.5 * len(name) if anchor == "end" else 0)
        boxes.append((left, float(y) - 11, left + 7.5 * len(name), float(y) + 3))
    assert len(boxes) == len({name for *_, name in at}) > 10
    assert not any(quality.overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
