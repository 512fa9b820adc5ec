"""The page of a review queue: each product's picture, its path and the other ones, and where the model looked."""

from typing import Any

import pyarrow as pa

from atlas_ray.reports.explainer import Explainer
from atlas_ray.reports.page import MAX_BYTES, card, cards, document, heading, jpeg_uri, paragraph, thumbnails
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.taxonomy import format_path

SHOWN = 200
"""Products on the page, and so many without any answer."""
SHOWN_OTHERS = 3
PICTURE_BYTES, STRIP_BYTES = 10_000, 45_000
REST_BYTES = 20_000
"""Of the page: its head and headings."""


def review_page(scored: ScoredRun, queue: pa.Table, explainer: Explainer | None) -> tuple[str, str]:
    """Draw the first products of a queue.

    Args:
        scored: The run.
        queue: As `atlas_ray.evaluation.review.QUEUE` has it.
        explainer: What says where it looked, for as many as the page has room for.

    Returns:
        The page, of under 5 MB, and what there is to say of its attention strips.
    """
    ranked = queue.filter(queue["margin"].is_valid()).slice(0, SHOWN).to_pylist()
    silent = queue.filter(queue["margin"].is_null()).slice(0, SHOWN).to_pylist()
    pictures = thumbnails([row["image_uri"] for row in ranked])
    shown = [
        card(picture, _lines(row), budget_bytes=PICTURE_BYTES) for picture, row in zip(pictures, ranked, strict=True)
    ]
    others = [card("no answer", [row["product_id"], *_label(row)], budget_bytes=0) for row in silent]
    note = ""
    if explainer is not None and not explainer.attends:
        note = f"the model {explainer.model_id} has no attention over the picture that could be shown"
    elif explainer is not None:
        room = MAX_BYTES - REST_BYTES - sum(len(one.encode()) for one in (*shown, *others))
        drawn = 0
        for number, found in enumerate(explainer.strips(ranked)):
            if isinstance(found.drawing, str):
                continue
            lines = _lines(ranked[number]) + ([found.explains] if found.explains else [])
            one = card("", lines, budget_bytes=0, strip=jpeg_uri(found.drawing, STRIP_BYTES))
            room -= len(one.encode()) - len(shown[number].encode())
            if room < 0:
                break
            shown[number], drawn = one, drawn + 1
        note = f"{drawn} of them show where the model {explainer.model_id} looked for each level"
        model = scored.identity.get("model_id")
        notes = [] if model == explainer.model_id else [f"the run was scored by {model}"]
        note = "; ".join([note, *notes, *(f"the model {one}" for one in explainer.notes)])
    head = (
        f"Smallest margin first: the best path's probability minus the second best one's. Model "
        f"{scored.identity.get('model_id')}, run {scored.uri}. Corrections go into queue.csv or queue.parquet."
    )
    parts = [heading("Products to review", 1), paragraph(head)]
    parts += [paragraph(f"{note[0].upper()}{note[1:]}.")] if note else []
    answered = len(queue) - queue["margin"].null_count
    parts += [heading(f"{len(ranked)} of {answered} products in the queue" if answered > len(ranked) else "In doubt")]
    parts.append(cards(shown))
    if silent:
        parts += [heading("Without any answer"), paragraph(f"{len(silent)} products; the run's quarantine says why.")]
        parts.append(cards(others))
    return document("Review", parts), note


def _lines(row: dict[str, Any]) -> list[str]:
    """Return what stands beside a picture."""
    path, alternatives = row["category_path"], row["alternatives"] or ()
    sure = "" if row["probability"] is None else f"probability {row['probability']:.4f}, "
    lines = [format_path(path) if path else "undecided", f"{sure}margin {row['margin']:.4f}"]
    others = [
        f"or {format_path(one['category_path'])}: {one['probability']:.4f}" for one in alternatives[:SHOWN_OTHERS]
    ]
    return [*lines, *others, *_label(row), row["product_id"]]


def _label(row: dict[str, Any]) -> list[str]:
    return [f"labelled {format_path(row['true_category_path'])}"] if row["true_category_path"] else []
