import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest

from atlas_ray.metrics import PathRow
from atlas_ray.metrics.calibration import Reliability
from atlas_ray.reports.charts import draw_reliability, draw_risk_coverage, draw_support, log_ticks


def row(number: int, support: int, f1: float, name: str = "Shirts") -> PathRow:
    return PathRow(("Men", f"{name} {number}"), f1, f1, f1, support, support)


def reliability(count: int, seed: int = 0) -> Reliability:
    found, random = Reliability(), np.random.default_rng(seed)
    probability = random.random(count)
    found.add(probability, random.random(count) < probability)
    return found


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize("most", [1, 2, 7, 194, 1_000, 55_848, 3_000_000])
def test_ticks_of_a_log_axis_are_plain_and_few(most: int) -> None:
    ticks = log_ticks(most)
    assert ticks[0] == 1
    assert len(ticks) <= 8
    assert all(1 < after / before <= 10 for before, after in pairwise(ticks))
    assert ticks[-1] <= max(most, 2) < 10 * ticks[-1] + 1


def test_support_says_which_path_a_point_is() -> None:
    svg = draw_support([row(1, 21, 0.5), row(2, 1, 1.0, "<b>&\x00"), row(3, 0, 0.0)])
    tree = ElementTree.fromstring(svg)
    titles = [title.text or "" for title in tree.iter("title")]
    assert titles == ["Men > Shirts 1: F-score 50.0%, 21 products", "Men > <b>&  2: F-score 100.0%, 1 products"]
    assert [text for text in texts(svg) if text.isdigit()] == ["1", "2", "5", "10", "20"]
    assert not re.search(r'(fill|stroke)="#', svg)  # colours are the page's, light or dark


def test_two_models_share_the_axes_of_one_plot() -> None:
    """The same path of both stands in the same column; the axis reaches to the larger support of the two."""
    drawn = ElementTree.fromstring(draw_support([row(1, 21, 0.5)], [row(1, 21, 0.25), row(2, 400, 1.0)]))
    circles = [(one.get("class"), one.get("cx"), float(one.get("cy", 0))) for one in drawn.iter("circle")]
    (low, large, disc) = circles
    assert (low[0], large[0], disc[0]) == ("ring", "ring", "point")
    assert low[1] == disc[1] != large[1]
    assert low[2] > disc[2] > large[2]  # a better one stands higher
    assert "200" in texts(draw_support([row(1, 21, 0.5)], [row(2, 400, 1.0)]))


def test_a_large_taxonomy_is_a_small_drawing() -> None:
    random = np.random.default_rng(1)
    rows = [row(n, int(random.integers(1, 50_000)), float(random.random()), "name " * 40) for n in range(20_000)]
    assert len(draw_support(rows)) < 1_200_000


@pytest.mark.parametrize("count", [0, 1, 500])
def test_trust_is_drawn_also_of_few_answers(count: int) -> None:
    drawn = draw_reliability([reliability(count), reliability(count, 1)])
    assert [figure.get("class") for figure in ElementTree.fromstring(drawn).iter("svg")] == ["chart", "chart"]
    assert ("Whole path: " in drawn, "Level 1: " in drawn, "nan" in drawn) == (True, True, False)
    if count:
        risk = draw_risk_coverage(reliability(count))
        ElementTree.fromstring(risk)
        assert "100%" in texts(risk)
