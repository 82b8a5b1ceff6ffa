"""A figure on disk: as pixels, as drawing, and as the table that it shows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .atomic import atomic_files
from .layout import with_ending

_DPI = 160


def save_pictures(path: Path, figure: Any, *, header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> list[Path]:
    """Write a matplotlib figure as PNG and SVG, and its data as CSV; all three or none.

    The layout is computed once and each file drawn once, which `Figure.savefig` does twice each.

    Args:
        path: without ending.
        figure: the figure.
        header: the table's columns.
        rows: the table; NaN is an empty cell.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    paths = [with_ending(path, ending) for ending in (".png", ".svg", ".csv")]
    with atomic_files(*paths) as (png, svg, table):
        figure.set_dpi(_DPI)
        FigureCanvasAgg(figure).print_png(png)
        figure.set_layout_engine("none")
        # texts stay texts, to be found and edited; the same ids every time, and no date, so that nothing changes by itself
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
            FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
        table.write(_csv(header, rows).encode("utf-8"))
    return paths


def _csv(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    return text.getvalue()
