"""Figures as sentences, for the first lines of a page and the last one on the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atlas_ray.metrics import PathMetrics
from atlas_ray.runs.tally import ALL, HELD_OUT
from atlas_ray.taxonomy import format_path

if TYPE_CHECKING:
    from atlas_ray.runs.scored import ScoredRun

MISSED = 15
"""Number of paths or labels that a page lists as most often missed, as many as the tables of the late-fusion paper."""
OFF = 0.05
"""Calibration error above which a calibration is advised."""
NOUNS = {
    "test": "test products", ALL: "labelled products", "none": "products without a split",
    HELD_OUT: "labelled products that the model was not fitted on",
}  # fmt: skip


def products_of(split: str) -> str:
    """Name the products of a split."""
    return NOUNS.get(split, f"{split} products")


def about_run(scored: "ScoredRun") -> str:
    """Name a scoring run: its folder, its model, its taxonomy, and when it was finished."""
    identity = scored.identity
    return (
        f"{scored.uri} · model {identity.get('model_id', '')} · taxonomy {identity.get('taxonomy_id', '')} · finished "
        f"{str(scored.run.get('finished_at', ''))[:19]}"
    )


def evaluation_verdict(split: str, figures: PathMetrics) -> str:
    """Return a sentence about the share of right products, and the most frequent confusion."""
    text = f"{figures.exact:.1%} of {figures.products:,} {products_of(split)} right"
    if figures.confusion is None:
        return text
    true, predicted = (
        f"\u201c{format_path(path)}\u201d" for path in (figures.confusion.true, figures.confusion.predicted)
    )
    count = figures.confusion.products
    often = "once" if count == 1 else "most often, twice" if count == 2 else f"most often, {count:,} times"
    return f"{text}; {true} is taken for {predicted} {often}"


def evaluation_details(figures: PathMetrics) -> list[str]:
    """Return sentences about the first figure's interval, the probabilities, and missing answers."""
    sentences = []
    if bounds := figures.intervals.get("exact"):
        sentences.append(
            f"With as many other products of the same kind, between {bounds[0]:.1%} and {bounds[1]:.1%} would be right "
            "(95% interval)."
        )
    off, chance = figures.calibration_error, figures.calibration_by_chance
    remedy = "; `atlas-ray calibrate` mends that" if off > max(OFF, 1.5 * chance) else ""
    sentences.append(
        f"Its probabilities are {100 * off:.1f} points off on average; on as many products right ones would seem about "
        f"{100 * chance:.1f} off, by chance{remedy}."
    )
    if figures.unscored:
        have = "has" if figures.unscored == 1 else "have"
        sentences.append(f"{figures.unscored:,} of the products {have} no answer, which counts as wrong.")
    return sentences


def comparison_verdict(account: Mapping[str, Any]) -> str:
    """Return a phrase about which of two runs is right more often, if either is.

    Args:
        account: What `comparison.json` holds.
    """
    accuracy = account["accuracy"]
    if not accuracy:
        return "no product has labels that judge both runs, so nothing says which one is right"
    split = headline_split(accuracy)
    paired = accuracy[split]
    measured_on = "on the test split" if split == "test" else f"on all {paired['products']:,} labelled products"
    if paired["low"] <= 0 <= paired["high"]:
        return f"no difference {measured_on}"
    better = "second" if paired["difference"] > 0 else "first"
    points = 100 * abs(paired["difference"])
    return f"the {better} run is right more often {measured_on}, by {points:.1f} points"


def headline_split(accuracy: Mapping[str, Any]) -> str:
    """Return the split whose figures come first in a comparison."""
    return "test" if "test" in accuracy else "all"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, which ends in s if there are several."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
