"""The page of a review queue: each product's picture, its path and the other ones, and where the model looked."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from PIL import Image

from atlas_ray.predictors import PathPredictor
from atlas_ray.products import Products
from atlas_ray.reports.attention import strip
from atlas_ray.reports.page import (
    MAX_BYTES,
    card,
    cards,
    document,
    heading,
    jpeg_uri,
    paragraph,
    read_pictures,
    thumbnail,
)
from atlas_ray.reports.scored import ScoredRun
from atlas_ray.taxonomy import format_path

SHOWN = 200
"""Products on the page, and so many without any answer."""
SHOWN_OTHERS = 3
PICTURE_BYTES, STRIP_BYTES = 10_000, 45_000
REST_BYTES = 20_000
"""Of the page: its head and headings."""
BATCH = 16


def review_page(scored: ScoredRun, queue: pa.Table, predictor: PathPredictor | None) -> tuple[str, str]:
    """Draw the first products of a queue.

    Args:
        scored: The run.
        queue: As `atlas_ray.reports.review.QUEUE` has it.
        predictor: What says where it looked, for as many as the page has room for.

    Returns:
        The page, of under 5 MB, and what there is to say of its attention strips.
    """
    ranked = queue.filter(queue["margin"].is_valid()).slice(0, SHOWN).to_pylist()
    silent = queue.filter(queue["margin"].is_null()).slice(0, SHOWN).to_pylist()
    found = read_pictures(row["image_uri"] for row in ranked)
    contents = [found[row["image_uri"]] for row in ranked]
    texts = [_lines(row) for row in ranked]
    shown = [
        card(thumbnail(content), text, budget_bytes=PICTURE_BYTES)
        for content, text in zip(contents, texts, strict=True)
    ]
    others = [card("no answer", [row["product_id"], *_label(row)], budget_bytes=0) for row in silent]
    note = ""
    if predictor is not None:
        room = MAX_BYTES - REST_BYTES - sum(len(one.encode()) for one in (*shown, *others))
        drawn = 0
        for number, picture in _strips(predictor, contents):
            one = card("", texts[number], budget_bytes=0, strip=jpeg_uri(picture, STRIP_BYTES))
            room -= len(one.encode()) - len(shown[number].encode())
            if room < 0:
                break
            shown[number], drawn = one, drawn + 1
        note = f"{drawn} of them show where the model {predictor.model_id} looked for each level"
        if not predictor.explains:
            note = f"the model {predictor.model_id} has no attention over the picture that could be shown"
        elif (model := scored.identity.get("model_id")) != predictor.model_id:
            note += f"; the run was scored by {model}"
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


def _strips(predictor: PathPredictor, contents: Sequence[bytes | Exception]) -> Iterator[tuple[int, Image.Image]]:
    """Yield the number of each picture that can be explained, and its attention as a strip."""
    readable = [(number, content) for number, content in enumerate(contents) if isinstance(content, bytes)]
    for start in range(0, len(readable) if predictor.explains else 0, BATCH):
        numbers, files = zip(*readable[start : start + BATCH], strict=True)
        pixels, refused = predictor.decode(files)
        good = [place for place in range(len(files)) if place not in refused]
        if not good:
            continue
        table, maps = predictor.explain(Products(pixels[good]))
        for row, place in enumerate(good):
            path, levels = (table[name][row].as_py() for name in ("category_path", "level_probabilities"))
            captions = [f"{name} {probability:.2f}" for name, probability in zip(path, levels, strict=True)]
            yield numbers[place], strip(pixels[place].numpy(), maps[row].numpy(), captions)
