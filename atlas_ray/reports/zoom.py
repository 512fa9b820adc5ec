"""The report of the zoom filter: Table 1 of the Atlas paper (Umaashankar et al. 2019), model beside model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from atlas_ray.metrics.zoom import warn_of_recall
from atlas_ray.reports.terminal import wide_console

FEW = 200
"""Number of pictures of a kind below which the report warns that a threshold rests on few."""

Scores = dict[str, dict[str, float]]
"""By class, `zoomed` and `normal`, and their `average`: precision, recall, f1 and support."""
MEASURES = ("precision", "recall", "f1")


def zoom_scores(zoomed: NDArray[np.bool_], found: NDArray[np.bool_]) -> Scores:
    """Compare which pictures are zoomed, (count,), with which were found so, (count,).

    A precision or recall of nothing is 0. The average is that of both classes, each weighted by its pictures.
    """
    scores: Scores = {}
    for name, true, guess in (("zoomed", zoomed, found), ("normal", ~zoomed, ~found)):
        right, support, guessed = (int(part.sum()) for part in (true & guess, true, guess))
        scores[name] = {
            "precision": right / guessed if guessed else 0.0,
            "recall": right / support if support else 0.0,
            "f1": 2 * right / (support + guessed) if support + guessed else 0.0,
            "support": support,
        }
    total = max(len(zoomed), 1)
    average = {name: sum(one[name] * one["support"] for one in scores.values()) / total for name in MEASURES}
    return scores | {"average": average | {"support": len(zoomed)}}


def print_zoom(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the metrics of a zoom filter's artifact: the scores of each model on the test split."""
    console = console or wide_console()
    table = Table("", "", title="zoomed or normal, test split", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("precision", "recall", "F-score", "pictures"):
        table.add_column(name, justify="right")
    names = {
        "cnn": "network, probability 0.5",
        "svm": "SVM, its own side",
        "filter": f"network, threshold {metrics['threshold']:.4f}",
    }
    for model, scores in metrics["test"].items():
        for row, (name, one) in enumerate(scores.items()):
            figures = (f"{one[measure]:.3f}" for measure in MEASURES)
            last = row == len(scores) - 1
            title = "" if row else names.get(model, model)
            table.add_row(title, name, *figures, str(int(one["support"])), end_section=last)
    console.print(table)
    threshold, target, reached = (metrics[key] for key in ("threshold", "target_precision", "unseen_precision"))
    (low, high), pictures = metrics["threshold_interval"], metrics["threshold_pictures"]
    count = sum(pictures.values())
    console.print(
        f"threshold {threshold:.4f} (90% interval {low:.4f} to {high:.4f}): of {count} pictures that were judged "
        f"unseen, {reached:.3f} of those found zoomed are zoomed, and {metrics['unseen_recall']:.3f} of the zoomed "
        "ones are found"
    )
    if (warning := warn_of_recall(metrics)) is not None:
        console.print(warning)
    if min(pictures.values()) < FEW:
        console.print(
            f"few pictures stand behind this threshold, {pictures['zoomed']} zoomed and {pictures['normal']} normal "
            f"ones, so that others may move it far; give {FEW} of each or more"
        )
    if reached < target:
        console.print(f"no threshold reaches the precision {target}; this is the most precise one")
