"""One HTML page that needs nothing else: its style, tables, plots and pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_rcnn.files import aside

if TYPE_CHECKING:
    import numpy as np

    from keras_rcnn.interfaces import FilePath

SIDE = 640  # px of a picture's longer side, twice what is shown in a sheet
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1080px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
li.error { color: #b00020 } li.warning { color: #8a5a00 }
table { border-collapse: collapse } td, th { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child, td:has(> small), th:has(> small) { text-align: left }
td:has(> .bar) { white-space: nowrap } .wide { overflow-x: auto }
.sheet { display: flex; flex-wrap: wrap; gap: .5rem } .sheet figure { margin: 0; width: 250px }
.sheet.pairs figure { width: 100% } .sheet.pairs img { max-width: 860px }
.sheet img { width: 100%; display: block } figcaption { font-size: .75rem; overflow-wrap: anywhere; color: #555 }
.sheet.pairs figcaption { font-size: .9rem; margin-bottom: 1rem }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .85rem }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em }
.bar { display: inline-block; height: .8em; background: #4a7fc1 }
.todo { border-left: 3px solid #4a7fc1; padding-left: .8rem }
svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif }
"""


class Markup(str):
    """HTML as it is; any other text is escaped."""

    __slots__ = ()


def write_html(path: FilePath, title: str, parts: Iterable[str]) -> Path:
    """Writes a page aside and renames it.

    Args:
        path: of the file.
        title: str.
        parts: texts of HTML, the body.

    Returns:
        `path` as a `pathlib.Path`.
    """
    path = Path(path)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def escaped(value: Any) -> str:
    """A value as HTML."""
    return value if isinstance(value, Markup) else html.escape(str(value))


def element(tag: str, text: Any, kind: str = "") -> Markup:
    """An element around a text, which is escaped unless it is `Markup`."""
    attribute = f' class="{kind}"' if kind else ""
    return Markup(f"<{tag}{attribute}>{escaped(text)}</{tag}>")


def html_table(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], shades: Sequence[Sequence[float | None]] | None = None
) -> Markup:
    """A table.

    Args:
        head: the cells of its first row.
        rows: lists of cells.
        shades: for each cell of `rows`, 0 to 1, how deeply it is coloured, or None; None: no cell is.
    """
    lines = ["".join(f"<th>{escaped(cell)}</th>" for cell in head)]
    for i, row in enumerate(rows):
        styles = [None] * len(row) if shades is None else shades[i]
        lines.append(
            "".join(f"<td{_shaded(shade)}>{escaped(cell)}</td>" for cell, shade in zip(row, styles, strict=True))
        )
    return Markup(f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>')


def colour_key(colour: tuple[int, int, int], text: Any) -> Markup:
    """A text behind a small square of a colour."""
    return Markup(f'<span class="key" style="background: rgb{tuple(colour)}"></span>{escaped(text)}')


def bar(share: float, text: Any) -> Markup:
    """A text behind a bar; `share` is 0 to 1."""
    return Markup(f'<span class="bar" style="width: {160 * share:.0f}px"></span> {escaped(text)}')


def figure(picture: np.ndarray | None, caption: str, side: int = SIDE) -> Markup:
    """A picture within the page, and what is to be said about it.

    Args:
        picture: uint8 array [height, width, 3], or None for the caption alone.
        caption: str.
        side: int, the picture's longer side at most, in px.
    """
    from PIL import Image

    words, shown = html.escape(caption), ""
    if picture is not None:
        image, buffer = Image.fromarray(picture), io.BytesIO()
        image.thumbnail((side, side))
        image.save(buffer, "JPEG", quality=80)
        code = base64.b64encode(buffer.getvalue()).decode()
        shown = f'<img alt="{words}" src="data:image/jpeg;base64,{code}">'
    return Markup(f"<figure>{shown}<figcaption>{words}</figcaption></figure>")


def sheet(figures: Iterable[str], kind: str = "") -> Markup:
    """Figures beside each other; of the kind "pairs", below each other."""
    return Markup(f'<div class="sheet {kind}">{"".join(figures)}</div>')


def unit_plot(
    lines: Sequence[tuple[str, tuple[int, int, int], Sequence[tuple[float, float]]]],
    points: Sequence[tuple[str, tuple[int, int, int], tuple[float, float]]],
    words: tuple[str, str],
) -> Markup:
    """A plot in the unit square as SVG.

    Args:
        lines: of each its name, its colour and its points (x, y).
        points: of each its name, its colour and (x, y).
        words: of the x axis and the y axis.
    """
    wide, high, edge = 560, 380, 45

    def place(x: float, y: float) -> str:
        return f"{edge + x * wide:.1f},{10 + (1 - y) * high:.1f}"

    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        (x, y0), (x0, y) = place(tick, 0).split(","), place(0, tick).split(",")
        parts.append(
            f'<path d="M{place(tick, 0)} L{place(tick, 1)} M{place(0, tick)} L{place(1, tick)}" stroke="#e4e4e4"/>'
        )
        parts.append(f'<text x="{x}" y="{float(y0) + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{float(x0) - 6}" y="{float(y) + 4}" text-anchor="end">{tick:g}</text>')
    middle = 10 + high / 2
    parts.append(f'<text x="{edge + wide / 2}" y="{high + 46}" text-anchor="middle">{html.escape(words[0])}</text>')
    turned = f'text-anchor="middle" transform="rotate(-90 12 {middle})"'
    parts.append(f'<text x="12" y="{middle}" {turned}>{html.escape(words[1])}</text>')
    for name, colour, places in lines:
        drawn = " ".join(place(x, y) for x, y in places)
        parts.append(
            f'<polyline points="{drawn}" fill="none" stroke="rgb{tuple(colour)}" stroke-width="2">'
            f"<title>{html.escape(name)}</title></polyline>"
        )
    for name, colour, (x, y) in points:
        across, down = place(x, y).split(",")
        parts.append(
            f'<circle cx="{across}" cy="{down}" r="5" fill="rgb{tuple(colour)}" stroke="#fff">'
            f"<title>{html.escape(name)}</title></circle>"
        )
    size = f"{wide + edge + 15} {high + 55}"
    return Markup(f'<svg width="{wide + edge + 15}" viewBox="0 0 {size}" role="img">{"".join(parts)}</svg>')


def _shaded(shade: float | None) -> str:
    if shade is None:
        return ""
    ink = "; color: #fff" if shade > 0.6 else ""
    return f' style="background: rgba(40, 90, 160, {shade:.3f}){ink}"'
