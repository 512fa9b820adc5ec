"""The page of an evaluated run of labels: which are applied rightly, and which are missed."""

from collections.abc import Mapping, Sequence
from typing import Any

from atlas_ray.io import storage
from atlas_ray.metrics import PathRow
from atlas_ray.reports.charts import draw_support
from atlas_ray.reports.page import Share, document, paragraph, section, summary, table
from atlas_ray.reports.words import MISSED, about_run, headline_split, products_of
from atlas_ray.runs.scored import ScoredRun

LABELS = 500
"""Number of labels that are listed, those with most products."""


def write_label_page(folder: str, scored: ScoredRun, metrics: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Write `report.html` into a folder.

    Args:
        folder: Where to.
        scored: The scoring run.
        metrics: What was measured, by split (`atlas_ray.evaluation.label_run.LabelMetrics`).
        notes: What there is to know of the figures.
    """
    split = headline_split(metrics)
    figures = metrics[split]
    parts = [
        summary([label_verdict(split, figures), *_details(figures), *notes], _tiles(figures)),
        section(
            "By split",
            _splits(metrics),
            paragraph(
                "Micro figures count each label of each product once, macro F1 each label alike. Everything below is "
                f"of the {figures.products:,} {products_of(split)}."
            ),
        ),
        section(
            "F-score and support",
            paragraph("Each point is a label; those with few products are the ones to collect more of."),
            draw_support([_point(row) for row in figures.labels], noun="label"),
        ),
        section("The labels most often missed", _missed(figures.labels)),
        section(*_labels(figures.labels)),
    ]
    page = document("Evaluation of labels", parts, about=about_run(scored))
    storage.write_bytes(storage.join(folder, "report.html"), page.encode())


def label_verdict(split: str, figures: Any) -> str:
    """Return a sentence about the share of products with just their labels, and the label most often missed."""
    text = f"{figures.exact:.1%} of {figures.products:,} {products_of(split)} have exactly their labels"
    worst = max(figures.labels, key=lambda row: row["missed"], default=None)
    if worst is None or not worst["missed"]:
        return text
    often = "once" if worst["missed"] == 1 else f"{worst['missed']:,} times"
    return f"{text}; \u201c{worst['label']}\u201d is missed most often, {often}"


def _details(figures: Any) -> list[str]:
    sentences = [
        f"{figures.micro_precision:.1%} of the labels that it applies are right, and it applies "
        f"{figures.micro_recall:.1%} of those that the products have."
    ]
    if figures.unscored:
        sentences.append(f"{figures.unscored:,} of the products have no answer: all their labels count as missed.")
    return sentences


def _tiles(figures: Any) -> list[tuple[str, Share]]:
    return [
        ("micro F1", Share(figures.micro_f1)),
        ("of the applied labels right", Share(figures.micro_precision)),
        ("of the true labels applied", Share(figures.micro_recall)),
        ("macro F1, each label alike", Share(figures.macro_f1)),
        ("products with exactly their labels", Share(figures.exact)),
    ]


def _splits(metrics: Mapping[str, Any]) -> str:
    head = ("split", "products", "micro F1", "precision", "recall", "macro F1", "exactly their labels", "unscored")
    return table(
        head,
        (
            (
                split, one.products, Share(one.micro_f1), Share(one.micro_precision), Share(one.micro_recall),
                Share(one.macro_f1), Share(one.exact), one.unscored,
            )
            for split, one in metrics.items()
        ),
    )  # fmt: skip


def _point(row: Mapping[str, Any]) -> PathRow:
    names = ("precision", "recall", "f1", "support", "predicted")
    return PathRow((row["label"],), *(row[name] for name in names))


def _missed(labels: Sequence[Mapping[str, Any]]) -> str:
    missed = sorted((row for row in labels if row["missed"]), key=lambda row: -row["missed"])
    return table(
        ("label", "missed", "products", "share missed"),
        (
            (row["label"], row["missed"], row["support"], Share(row["missed"] / row["support"]))
            for row in missed[:MISSED]
        ),
    )


def _labels(labels: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the title and the table of all labels, or of those with most products."""
    title = "Labels" if len(labels) <= LABELS else f"The {LABELS} labels with most products, of {len(labels):,}"
    rows = (
        (
            row["label"], row["support"], row["predicted"], Share(row["precision"]), Share(row["recall"]),
            Share(row["f1"]), row["threshold"] if row["threshold"] <= 1 else None,
        )
        for row in labels[:LABELS]
    )  # fmt: skip
    return title, table(("label", "products", "applied", "precision", "recall", "F1", "threshold"), rows)
