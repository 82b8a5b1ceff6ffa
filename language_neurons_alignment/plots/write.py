"""A figure into open files: the layout is computed once and each form drawn once, which `savefig` does twice each."""

from __future__ import annotations

from typing import IO

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_DPI = 150
_COMPRESSION = 3
"""PNG level; the usual 6 makes files a seventh smaller and writing them a fifth slower."""


def write_png(figure: Figure, file: IO[bytes]) -> None:
    """Draw a figure as pixels; its layout stands from then on."""
    figure.set_dpi(_DPI)
    FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": _COMPRESSION})
    figure.set_layout_engine("none")


def write_svg(figure: Figure, file: IO[bytes]) -> None:
    """Draw a figure as SVG: texts stay texts, and the same figure gives the same bytes."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lna"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
