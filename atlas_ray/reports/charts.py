"""The drawings of an evaluation, as SVG that takes its colours from the page around it."""

import html
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from atlas_ray.metrics import PathRow
from atlas_ray.metrics.calibration import Reliability
from atlas_ray.taxonomy import format_path

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 42
"""Margins, which hold the names of the axes; the text is 12 units high, so that a phone shows it as 11 px."""
CELL = 4
"""Distance below which two points are drawn as one."""
MAX_TITLE_CHARACTERS = 120
DECADES = (1, 2, 5)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

Scale = Callable[[float], float]
Ticks = Sequence[tuple[float, str]]


def draw_support(rows: Sequence[PathRow], earlier: Sequence[PathRow] = (), *, noun: str = "path") -> str:
    """Draw each path's F-score against its support on a log axis, as Figure 5 of the Atlas paper.

    A point under the pointer shows its path.

    Args:
        rows: The figures of a model's paths, drawn as discs.
        earlier: Those of another model, drawn as rings in the same plot.
        noun: What a point is: a path or a label.
    """
    most = max((row.support for row in (*rows, *earlier)), default=1) or 1
    across, up = _log_scale(most), _linear(1.0, TOP, HEIGHT - BOTTOM, turned=True)
    ticks = [(value, f"{value:,}") for value in log_ticks(most)]
    points = _points(earlier, across, up, "ring") + _points(rows, across, up, "point")
    return _chart(
        f"F-score of each {noun} against its number of products",
        _axes(across, up, ticks, _share_ticks(), f"products of the {noun}", "F-score") + points,
    )


def _points(rows: Sequence[PathRow], across: Scale, up: Scale, kind: str) -> str:
    """Draw a point for each path with support; those that would cover one another are one, a little larger."""
    places: dict[tuple[int, int], list[PathRow]] = defaultdict(list)
    for row in rows:
        if row.support:
            places[round(across(row.support) / CELL), round(up(row.f1) / CELL)].append(row)
    return "".join(
        f'<circle class="{kind}" cx="{x * CELL}" cy="{y * CELL}" r="{3.5 + math.log10(len(some)):.1f}">'
        f"<title>{html.escape(_named(some))}</title></circle>"
        for (x, y), some in places.items()
    )


def draw_reliability(trust: Sequence[Reliability]) -> str:
    """Draw accuracy against probability of the whole path and of each level, with how many answers there are."""
    return f'<div class="charts">{"".join(map(_reliability, range(len(trust)), trust))}</div>'


def _reliability(level: int, reliability: Reliability) -> str:
    across, up = _linear(1.0, LEFT, WIDTH - RIGHT), _linear(1.0, TOP, HEIGHT - BOTTOM, turned=True)
    total = max(sum(bin_.count for bin_ in reliability.bins), 1)
    columns = "".join(
        f'<rect class="column" x="{across(bin_.low):.1f}" y="{up(bin_.count / total):.1f}" '
        f'width="{across(bin_.high) - across(bin_.low):.1f}" height="{up(0) - up(bin_.count / total):.1f}"/>'
        for bin_ in reliability.bins
    )
    even = f'<line class="even" x1="{across(0)}" y1="{up(0)}" x2="{across(1)}" y2="{up(1)}"/>'
    places = [(across(bin_.probability), up(bin_.accuracy)) for bin_ in reliability.bins]
    points = "".join(
        f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{bin_.count:,} answers of about '
        f"{bin_.probability:.1%}: {bin_.accuracy:.1%} right</title></circle>"
        for (x, y), bin_ in zip(places, reliability.bins, strict=True)
    )
    title = f"Level {level}" if level else "Whole path"
    drawn = _chart(
        f"{title}: share of right answers by probability",
        columns
        + _axes(across, up, _share_ticks(), _share_ticks(), "probability", "right")
        + even
        + _line(places)
        + points,
    )
    caption = f"{title}: {reliability.expected_error:.1%} off on average"
    return f"<figure>{drawn}<figcaption>{html.escape(caption)}</figcaption></figure>"


def draw_risk_coverage(one: Reliability) -> str:
    """Draw the share of wrong answers among the surest ones, against how many of the products those are."""
    points = [(share, 1 - right) for _, share, right in one.risk_coverage()]
    most = max((wrong for _, wrong in points), default=0.0)
    top = next(value for value in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if most <= value)
    across, up = _linear(1.0, LEFT, WIDTH - RIGHT), _linear(top, TOP, HEIGHT - BOTTOM, turned=True)
    stairs: list[tuple[float, float]] = []
    for share, wrong in points:
        if stairs:
            stairs.append((across(share), stairs[-1][1]))
        stairs.append((across(share), up(wrong)))
    ticks = [(top * part, f"{100 * top * part:g}%") for part in (0, 0.5, 1)]
    return _chart(
        "share of wrong answers against the share of products answered",
        _axes(across, up, _share_ticks(), ticks, "products answered, surest first", "wrong") + _line(stairs),
    )


def draw_histogram(bins: Sequence[tuple[str, int]], across: str, up: str) -> str:
    """Draw columns with their counts.

    Args:
        bins: The name of each column, and how many there are in it.
        across: The name of what the columns tell apart.
        up: The name of what is counted.
    """
    most = max((count for _, count in bins), default=1) or 1
    height, step = _linear(most, TOP, HEIGHT - BOTTOM - 24, turned=True), (WIDTH - LEFT - RIGHT) / max(len(bins), 1)
    floor = HEIGHT - BOTTOM - 24
    drawn = [f'<line class="grid-line" x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}"/>']
    for place, (name, count) in enumerate(bins):
        left, y = LEFT + place * step, height(count)
        middle = left + step / 2
        drawn.append(
            f'<rect class="column" x="{left + 1:.1f}" y="{y:.1f}" width="{max(step - 2, 1):.1f}" '
            f'height="{floor - y:.1f}"><title>{html.escape(f"{name}: {count:,}")}</title></rect>'
        )
        if count:
            drawn.append(f'<text x="{middle:.1f}" y="{y - 4:.1f}" text-anchor="middle">{count:,}</text>')
        turned = f'transform="rotate(-35 {middle:.1f} {floor + 12})"'
        drawn.append(f'<text x="{middle:.1f}" y="{floor + 12}" text-anchor="end" {turned}>{html.escape(name)}</text>')
    drawn.append(
        f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{html.escape(across)}</text>'
    )
    drawn.append(f'<text class="name" x="{LEFT}" y="14">{html.escape(up)}</text>')
    return _chart(f"number of {up} by {across}", "".join(drawn))


def log_ticks(most: float) -> list[int]:
    """Return the ticks of a log axis from 1: round numbers as people say them, at most eight."""
    powers = range(math.ceil(math.log10(max(most, 1))) + 1)
    ticks = [step * 10**power for power in powers for step in DECADES]
    ticks = [tick for tick in ticks if tick <= max(most, 2)]
    return ticks if len(ticks) <= 8 else [tick for tick in ticks if str(tick)[0] == "1"]


def _named(rows: Sequence[PathRow]) -> str:
    first = rows[0]
    text = f"{format_path(first.path)}: F-score {first.f1:.1%}, {first.support:,} products"
    if len(text) > MAX_TITLE_CHARACTERS:
        text = f"…{text[1 - MAX_TITLE_CHARACTERS :]}"
    return "".join(letter if letter.isprintable() else " " for letter in text) + (
        f" and {len(rows) - 1} more paths" if len(rows) > 1 else ""
    )


def _linear(most: float, start: float, end: float, *, turned: bool = False) -> Scale:
    low, high = (end, start) if turned else (start, end)
    return lambda value: low + (high - low) * value / most


def _log_scale(most: float) -> Scale:
    """Return a log scale from 1 to the largest value, with a little room at both ends."""
    room = 8
    decades = math.log10(max(most, 2))
    return lambda value: LEFT + room + (WIDTH - LEFT - RIGHT - 2 * room) * math.log10(value) / decades


def _share_ticks() -> Ticks:
    return [(share, f"{100 * share:g}%") for share in SHARES]


def _axes(across: Scale, up: Scale, x_ticks: Ticks, y_ticks: Ticks, x_name: str, y_name: str) -> str:
    left, right, floor = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    drawn = []
    for value, text in y_ticks:
        y = f"{up(value):.1f}"
        drawn.append(f'<line class="grid-line" x1="{left}" y1="{y}" x2="{right}" y2="{y}"/>')
        drawn.append(f'<text x="{left - 6}" y="{y}" dy="4" text-anchor="end">{text}</text>')
    for value, text in x_ticks:
        x = f"{across(value):.1f}"
        drawn.append(f'<line class="grid-line" x1="{x}" y1="{TOP}" x2="{x}" y2="{floor}"/>')
        anchor = "end" if across(value) > right - 4 else "middle"
        drawn.append(f'<text x="{x}" y="{floor + 16}" text-anchor="{anchor}">{text}</text>')
    drawn.append(f'<text class="name" x="{right}" y="{HEIGHT - 6}" text-anchor="end">{html.escape(x_name)}</text>')
    drawn.append(f'<text class="name" x="{left}" y="14">{html.escape(y_name)}</text>')
    return "".join(drawn)


def _line(points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _chart(alt: str, body: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(alt)}">{body}</svg>'
