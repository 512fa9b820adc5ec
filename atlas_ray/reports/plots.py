"""The drawings of an evaluation, as PNG files."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atlas_ray.metrics import PathRow
from atlas_ray.metrics.calibration import Reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 90


def draw_support(rows: Sequence[PathRow]) -> bytes:
    """Draw each path's F-score against its support on a log axis, as Figure 5 of the Atlas paper."""
    figure = _figure(7, 4)
    axes = figure.subplots()
    supported = [row for row in rows if row.support]
    axes.scatter([row.support for row in supported], [row.f1 for row in supported], s=14, alpha=0.6)
    axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("products of the path")
    axes.set_ylabel("F-score")
    axes.grid(alpha=0.3)
    return _png(figure)


def draw_reliability(trust: Sequence[Reliability]) -> bytes:
    """Draw accuracy against probability of the whole path and of each level, with how many answers there are."""
    columns = min(len(trust), 3)
    lines = -(-len(trust) // columns)
    figure = _figure(3.4 * columns, 3.2 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel in panels[len(trust) :]:
        panel.set_axis_off()
    for level, (axes, one) in enumerate(zip(panels, trust, strict=False)):
        bins = one.bins
        total = max(sum(bin_.count for bin_ in bins), 1)
        width = [bin_.high - bin_.low for bin_ in bins]
        axes.bar([bin_.low for bin_ in bins], [bin_.count / total for bin_ in bins], width, align="edge", alpha=0.2)
        axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
        axes.plot([bin_.probability for bin_ in bins], [bin_.accuracy for bin_ in bins], marker="o", markersize=4)
        title = f"level {level}" if level else "whole path"
        axes.set_title(f"{title}: error {one.expected_error:.4f}", fontsize=10)
        axes.set_xlabel("probability (bars: share of the answers)", fontsize=8)
        axes.set_ylabel("share that is right", fontsize=8)
        axes.grid(alpha=0.3)
    return _png(figure)


def draw_risk_coverage(one: Reliability) -> bytes:
    """Draw the share of wrong answers among the surest ones, against how many of the products those are."""
    figure = _figure(7, 3.6)
    axes = figure.subplots()
    points = one.risk_coverage()
    axes.step([share for _, share, _ in points], [1 - right for _, _, right in points], where="post")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of the products that is answered, surest first")
    axes.set_ylabel("share of them that is wrong")
    axes.grid(alpha=0.3)
    return _png(figure)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
