"""The page of an evaluation: where the model is right, where it is wrong, and how far to trust it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atlas_ray.errors import ArtifactError, StorageError
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.metrics import PathMetrics, common_prefix
from atlas_ray.reports.charts import draw_reliability, draw_risk_coverage, draw_support
from atlas_ray.reports.page import (
    Share,
    document,
    gallery,
    heading,
    paragraph,
    section,
    strip,
    summary,
    table,
    thumbnails,
)
from atlas_ray.reports.words import MISSED, about_run, counted, evaluation_details, evaluation_verdict, products_of
from atlas_ray.runs.examples import Examples, find_examples, image_uris
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.runs.tally import BANDS, UNKNOWN, Tallies, Tally, band_names
from atlas_ray.schemas import LABEL_ERRORS
from atlas_ray.taxonomy import CategoryPath, format_path

if TYPE_CHECKING:
    from atlas_ray.reports.explainer import Explainer, Proposal, Strip

CONFUSIONS, EACH = 12, 4
MAX_BANDS = 20
EXPLAINED, CANDIDATES = 4, 200
"""Numbers of products that are shown with where the model looked, and of those that they are chosen from."""
OUTSIDE, NEW_PATHS, NEW_EACH = 256, 8, 3
ERRORS = 16
STRIP_BYTES = 90_000
OF_LABEL_ERRORS = "label_errors.parquet"
COLUMNS_SAID = {
    "store": "store", "price": "price", "image_size_px": "shorter side of the picture, px",
    "zoomed_probability": "probability of being zoomed", "images_unread": "what was read of the product",
}  # fmt: skip


def write_page(
    folder: str,
    scored: ScoredRun,
    tallies: Tallies,
    metrics: Mapping[str, PathMetrics],
    notes: Sequence[str],
    *,
    model: str | None,
    embeddings: str | None,
) -> list[dict[str, Any]] | None:
    """Write `report.html` into a folder.

    Args:
        folder: Where to.
        scored: The scoring run, whose products are shown.
        tallies: The counts by split.
        metrics: What was measured, by split.
        notes: What there is to know of the figures.
        model: The run's model, for the sections that need it; None leaves them out.
        embeddings: Where likely label errors are listed; None leaves them out.

    Returns:
        The paths outside the taxonomy that the model would say, rows of `NEW_PATHS`; None if it was not asked.
    """
    split = tallies.headline
    figures, counts = metrics[split], tallies.by_split[split]
    explainer = _explainer(model, scored) if model else None
    parts = [
        summary([evaluation_verdict(split, figures), *evaluation_details(figures), *notes], _tiles(figures)),
        section(
            "By split",
            _headline(metrics),
            paragraph(
                "Small: 95% bootstrap intervals over products, in percent. Hierarchical F1 counts the names of the "
                "longest common prefix. An answer holds if the path, or the ancestor that was answered with, is "
                f"right. Everything below is of the {figures.products:,} {products_of(split)}."
            ),
        ),
        section("By level", _levels(figures)),
        section(
            "F-score and support",
            paragraph("Each point is a category path; those with few products are the ones to collect more of."),
            draw_support(figures.paths),
        ),
    ]
    confused = _costliest(counts)
    examples = find_examples(
        scored,
        split,
        [pair for pair, _, _ in confused],
        each=EACH,
        explained=CANDIDATES if explainer and explainer.attends else 0,
        outside=OUTSIDE if explainer and explainer.proposes else 0,
    )
    parts += [
        section("The confusions that cost most", *_confusions(confused, examples)),
        section("The paths most often missed", _missed(figures)),
        *_trust(counts),
        *_slices(counts),
    ]
    if explainer:
        parts += _explained(explainer, examples.right.rows, examples.wrong.rows)
    proposed = None
    if explainer and explainer.proposes:
        outside = examples.outside.rows
        paths = explainer.new_paths(outside)
        parts.append(_new_paths(paths, outside))
        proposed = [
            {
                "split": split, "category_path": list(path), "products": len(proposals),
                "probability": proposals[0].probability,
                "product_ids": [outside[proposal.row]["product_id"] for proposal in proposals],
            }
            for path, proposals in paths.items()
        ]  # fmt: skip
    if embeddings:
        parts.append(_label_errors(scored, embeddings))
    storage.write_bytes(
        storage.join(folder, "report.html"), document("Evaluation", parts, about=about_run(scored)).encode()
    )
    return proposed


def _explainer(model: str, scored: ScoredRun) -> "Explainer":
    from atlas_ray.reports.explainer import (
        Explainer,
    )  # modules that run models take 200 MB, which a report without one does not need

    explainer, of_run = Explainer(model, scored), scored.identity.get("model_id")
    if of_run not in (None, explainer.model_id):
        raise ArtifactError(f"{model}: model {explainer.model_id}; the run was made with {of_run}")
    return explainer


def _tiles(figures: PathMetrics) -> list[tuple[str, Share]]:
    levels = [
        (f"level {level} right", _share(figures, f"level_{level}", accuracy))
        for level, accuracy in enumerate(figures.levels, 1)
    ]
    return [
        ("whole path right", _share(figures, "exact")),
        *levels[:-1],
        ("macro F1, each path alike", _share(figures, "macro_f1")),
        ("of the products answered", Share(figures.answered)),
        ("of the answers hold", Share(figures.precision)),
    ]


def _headline(metrics: Mapping[str, PathMetrics]) -> str:
    head = ("split", "products", "exact path", "hierarchical F1", "macro F1", "calibration error", "answered",
            "precision of the answers", "unscored")  # fmt: skip
    return table(
        head,
        (
            (
                split, one.products, *(_share(one, name) for name in ("exact", "hierarchical_f1", "macro_f1")),
                Share(one.calibration_error), Share(one.answered), Share(one.precision), one.unscored,
            )
            for split, one in metrics.items()
        ),
    )  # fmt: skip


def _share(one: PathMetrics, name: str, value: float | None = None) -> Share:
    return Share(getattr(one, name) if value is None else value, one.intervals.get(name))


def _levels(figures: PathMetrics) -> str:
    errors = (*figures.level_calibration_errors, *[None] * len(figures.levels))
    return table(
        ("level", "accuracy", "macro F1", "calibration error"),
        (
            (level, _share(figures, f"level_{level}", accuracy), Share(f1), Share(error))
            for level, (accuracy, f1, error) in enumerate(
                zip(figures.levels, figures.level_macro_f1, errors, strict=False), 1
            )
        ),
    )


def _costliest(counts: Tally) -> list[tuple[tuple[CategoryPath, CategoryPath | None], int, int]]:
    """Return the pairs that lose most names, with their products and the names lost."""
    lost = [
        (pair, products, products * (len(pair[0]) - common_prefix(pair[0], pair[1] or ())))
        for pair, products in counts.pairs.items()
        if pair[0] != pair[1]
    ]
    return sorted(lost, key=lambda one: (-one[2], -one[1], str(one[0])))[:CONFUSIONS]


def _confusions(
    confused: Sequence[tuple[tuple[CategoryPath, CategoryPath | None], int, int]], examples: Examples
) -> Iterator[str]:
    if not confused:
        yield paragraph("none: every product is right")
        return
    yield paragraph(f"By names of the path that are lost, over all products; the {EACH} surest products of each.")
    for pair, products, lost in confused:
        true, guess = pair
        rows = examples.confused[pair].rows
        captions = [f"{row['product_id']} {row['probability']:.1%}" for row in rows]
        yield heading(
            f"{format_path(true)} taken for {format_path(guess) if guess else 'no answer'}: "
            f"{counted(products, 'product')}, {counted(lost, 'name')} lost"
        )
        yield gallery(list(zip(thumbnails([row["image_uri"] for row in rows]), captions, strict=True)))


def _missed(figures: PathMetrics) -> str:
    rows = sorted(figures.paths, key=lambda row: (-row.missed, row.path))[:MISSED]
    head = ("category path", "missed", "products", "recall", "precision")
    return table(
        head,
        (
            (format_path(row.path), row.missed, row.support, Share(row.recall), Share(row.precision))
            for row in rows
            if row.missed
        ),
    )


def _trust(counts: Tally) -> Iterator[str]:
    yield section(
        "How far its probabilities can be trusted",
        paragraph(
            "Where the line lies on the diagonal, of the answers with probability 90% nine in ten are right; below it "
            "the model is too sure of itself, and `atlas-ray calibrate` mends that. Columns: the share of the answers."
        ),
        draw_reliability(counts.trust),
    )
    points = counts.fine.risk_coverage()
    if not points:
        yield section("Risk and coverage", paragraph("no product has an answer"))
        return
    rows = []
    for wanted in (0.9, 0.95, 0.98, 0.99):
        reached = [point for point in points if point[2] >= wanted]
        best = max(reached, key=lambda point: point[1]) if reached else (None, 0.0, None)
        rows.append(list(map(Share, (wanted, *best))))
    head = ("precision wanted", "least probability of the leaf", "share answered", "precision there")
    yield section("Risk and coverage", draw_risk_coverage(counts.fine), table(head, rows))


def _slices(counts: Tally) -> Iterator[str]:
    for column, bands in counts.slices.items():
        if set(bands) == {UNKNOWN}:
            continue
        rows = sorted(bands.items(), key=lambda item: -item[1][0])[:MAX_BANDS]
        if column in BANDS:
            order = band_names(column)
            rows.sort(key=lambda item: order.index(item[0]))
        head = (COLUMNS_SAID[column], "products", "exact path")
        yield section(f"By {COLUMNS_SAID[column]}", table(head, ((b, n, Share(hits / n)) for b, (n, hits) in rows)))


def _explained(explainer: "Explainer", right: Sequence[Any], wrong: Sequence[Any]) -> Iterator[str]:
    if not explainer.attends:
        return
    chosen = [_of_different_paths(rows) for rows in (right, wrong)]
    strips = explainer.strips([row for rows in chosen for row in rows])
    drawn = [[_looked(row, next(strips)) for row in rows] for rows in chosen]
    notes = [paragraph(f"The model {'; '.join(explainer.notes)}.")] if explainer.notes else []
    for kind, shown in zip(("right", "wrong"), drawn, strict=True):
        yield section(f"Where it looked: {kind} answers", *(shown or [paragraph("none")]), *notes)


def _looked(row: Mapping[str, Any], drawn: "Strip") -> str:
    predicted, true = format_path(row["category_path"]), format_path(row["true_category_path"])
    about = f"{row['product_id']}: {predicted} ({row['probability']:.1%})"
    about += "" if predicted == true else f"; labelled {true}"
    about += f"; {drawn.explains}" if drawn.explains else ""
    if isinstance(drawn.drawing, str):
        return heading(about) + paragraph(f"its picture cannot be shown: {drawn.drawing}")
    return heading(about) + strip(drawn.drawing, STRIP_BYTES)


def _of_different_paths(rows: Sequence[Any]) -> list[Any]:
    by_path: dict[str, Any] = {}
    for row in rows:
        by_path.setdefault(format_path(row["category_path"]), row)
    return list(by_path.values())[:EXPLAINED]


def _new_paths(by_path: Mapping[CategoryPath, Sequence["Proposal"]], rows: Sequence[Any]) -> str:
    listed = list(by_path.items())
    head = ("path", "products", "highest probability")
    parts = [
        paragraph(
            f"Of the {len(rows):,} products of which the model thinks most that they belong nowhere, those for which "
            "it would spell another path than the taxonomy's if it were free to."
        ),
        table(
            head, ((format_path(path), len(proposals), Share(proposals[0].probability)) for path, proposals in listed)
        ),
    ]
    for path, proposals in listed[:NEW_PATHS]:
        parts.append(heading(format_path(path)))
        parts.append(gallery([
            (one.thumbnail, f"labelled {format_path(rows[one.row]['true_category_path'])}; {one.probability:.1%}")
            for one in proposals[:NEW_EACH]
        ]))  # fmt: skip
    return section("Paths that the taxonomy does not have", *parts)


def _label_errors(scored: ScoredRun, embeddings: str) -> str:
    uri = storage.join(storage.absolute(embeddings), OF_LABEL_ERRORS)
    if not storage.exists(uri):
        raise StorageError(f"{uri}: not there; run `atlas-ray similar --embeddings {embeddings} --label-errors` first")
    rows = open_table(uri, LABEL_ERRORS).read().slice(0, ERRORS).to_pylist()
    shown = [
        (row[f"{side}product_id"], row[f"{side}category_path"], row["similarity"])
        for row in rows
        for side in ("", "other_")
    ]
    uris = image_uris(scored, [product for product, _, _ in shown])
    captions = [f"{product}: {format_path(path)} ({similarity:.1%} alike)" for product, path, similarity in shown]
    pictures = thumbnails([uris.get(product) for product, _, _ in shown])
    return section(
        "Likely label errors",
        paragraph("Nearly the same product, labelled differently: one of the two labels is likely wrong."),
        gallery(list(zip(pictures, captions, strict=True))),
    )
