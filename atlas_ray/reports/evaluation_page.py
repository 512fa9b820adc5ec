"""The page of an evaluation: where the model is right, where it is wrong, and how far to trust it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atlas_ray.errors import ArtifactError, StorageError
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.metrics import PathMetrics, common_prefix
from atlas_ray.reports.page import document, gallery, heading, jpeg_uri, paragraph, plot, table, thumbnails
from atlas_ray.reports.plots import draw_reliability, draw_risk_coverage, draw_support
from atlas_ray.runs.examples import find_examples, image_uris
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.runs.tally import ALL, BANDS, HELD_OUT, UNKNOWN, Tallies, Tally, band_names
from atlas_ray.schemas import LABEL_ERRORS
from atlas_ray.taxonomy import CategoryPath, format_path

if TYPE_CHECKING:
    from atlas_ray.reports.explainer import Explainer, Proposal

CONFUSIONS, EACH = 12, 4
MISSED = 15
"""As many labels as the tables of the late-fusion paper."""
MOST_BANDS = 20
EXPLAINED, CANDIDATES = 4, 200
"""Products that are shown with where the model looked, of as many different paths; chosen among so many."""
OUTSIDE, NEW_PATHS, NEW_EACH = 256, 8, 3
ERRORS = 16
STRIP_BYTES = 90_000
OF_LABEL_ERRORS = "label_errors.parquet"
HEADLINES = {
    "test": "the split test", HELD_OUT: "the labelled products that the model was not fitted on",
    ALL: "all labelled products",
}  # fmt: skip
COLUMNS_SAID = {
    "store": "store", "price": "price", "image_size_px": "shorter side of the picture, px",
    "zoomed_probability": "probability of being zoomed",
}  # fmt: skip


def write_page(
    folder: str,
    scored: ScoredRun,
    found: Tallies,
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
        found: What was counted, by split.
        metrics: What was measured, by split.
        notes: What there is to know of the figures.
        model: The run's model, for what only it can say; None leaves that out.
        embeddings: Where likely label errors are listed; None leaves them out.

    Returns:
        The paths outside the taxonomy that the model would say, rows of `NEW_PATHS`; None where it was not asked.
    """
    split = found.headline
    one, counts = metrics[split], found.by_split[split]
    identity = scored.identity
    explainer = _explainer(model, scored) if model else None
    parts = [
        heading("Evaluation of a scoring run", 1),
        paragraph(
            f"{scored.uri}; model {identity.get('model_id', '')}, taxonomy {identity.get('taxonomy_id', '')}, finished "
            f"{str(scored.run.get('finished_at', ''))[:19]}. Below the first table everything is of "
            f"{HEADLINES[split]}: {one.products} products."
        ),
        *map(paragraph, notes),
        *_headline(metrics),
        *_levels(one),
        heading("F-score and support"),
        paragraph("Each point is a category path; those with few products are the ones to collect more of."),
        plot(draw_support(one.paths), "F-score of each path against its number of products"),
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
        heading("The confusions that cost most"),
        paragraph(f"By names of the path that are lost, over all products; the {EACH} surest products of each."),
    ]
    for pair, products, lost in confused:
        true, guess = pair
        said = format_path(guess) if guess else "no answer"
        parts.append(paragraph(f"{format_path(true)} taken for {said}: {products} products, {lost} names lost"))
        rows = examples.confused[pair].rows
        captions = [f"{row['product_id']} {row['probability']:.3f}" for row in rows]
        parts.append(gallery(list(zip(thumbnails([row["image_uri"] for row in rows]), captions, strict=True))))
    parts += [*_missed(one), *_trust(counts), *_slices(counts)]
    if explainer:
        parts += _explained(explainer, examples.right.rows, examples.wrong.rows)
    proposed = None
    if explainer and explainer.proposes:
        outside = examples.outside.rows
        paths = explainer.new_paths(outside)
        parts += _new_paths(paths, outside)
        proposed = [
            {
                "split": split, "category_path": list(path), "products": len(some), "probability": some[0].probability,
                "product_ids": [outside[one.row]["product_id"] for one in some],
            }
            for path, some in paths.items()
        ]  # fmt: skip
    if embeddings:
        parts += _label_errors(scored, embeddings)
    storage.write_bytes(storage.join(folder, "report.html"), document("Evaluation", parts).encode())
    return proposed


def _explainer(model: str, scored: ScoredRun) -> "Explainer":
    from atlas_ray.reports.explainer import Explainer  # what runs models takes 200 MB that a report need not have

    explainer, of_run = Explainer(model, scored), scored.identity.get("model_id")
    if of_run not in (None, explainer.model_id):
        raise ArtifactError(f"{model}: model {explainer.model_id}; the run was made with {of_run}")
    return explainer


def _headline(metrics: Mapping[str, PathMetrics]) -> Iterator[str]:
    head = ("split", "products", "exact path", "hierarchical F1", "macro F1", "calibration error", "answered",
            "precision of the answers", "unscored")  # fmt: skip
    yield table(
        head,
        (
            (
                split, one.products,
                *(_with_interval(one, name) for name in ("exact", "hierarchical_f1", "macro_f1")),
                one.calibration_error, one.answered, one.precision, one.unscored,
            )
            for split, one in metrics.items()
        ),
    )  # fmt: skip
    yield paragraph(
        "In brackets: 95% bootstrap intervals over products. Hierarchical F1 counts the names of the longest common "
        "prefix. An answer holds where the path, or the ancestor that was answered with, is right."
    )


def _with_interval(one: PathMetrics, name: str, value: float | None = None) -> str:
    value = getattr(one, name) if value is None else value
    low, high = one.intervals.get(name, (value, value))
    return f"{value:.4f} ({low:.4f}–{high:.4f})"


def _levels(one: PathMetrics) -> Iterator[str]:
    yield heading("By level")
    errors = (*one.level_calibration_errors, *[None] * len(one.levels))
    yield table(
        ("level", "accuracy", "macro F1", "calibration error"),
        (
            (level, _with_interval(one, f"level_{level}", accuracy), f1, error)
            for level, (accuracy, f1, error) in enumerate(zip(one.levels, one.level_macro_f1, errors, strict=False), 1)
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


def _missed(one: PathMetrics) -> Iterator[str]:
    yield heading("The paths most often missed")
    rows = sorted(one.paths, key=lambda row: (-row.missed, row.path))[:MISSED]
    head = ("category path", "missed", "products", "recall", "precision")
    yield table(
        head,
        ((format_path(row.path), row.missed, row.support, row.recall, row.precision) for row in rows if row.missed),
    )


def _trust(counts: Tally) -> Iterator[str]:
    yield heading("How far its probabilities can be trusted")
    yield paragraph(
        "Where the line lies on the diagonal, of the answers with probability 0.9 nine in ten are right; below it the "
        "model is too sure of itself, and `atlas-ray calibrate` mends that."
    )
    yield plot(draw_reliability(counts.trust), "share of right answers by probability, for each level")
    yield heading("Risk and coverage")
    points = counts.fine.risk_coverage()
    if not points:
        yield paragraph("no product has an answer")
        return
    yield plot(draw_risk_coverage(counts.fine), "share of wrong answers against the share of products answered")
    rows = []
    for wanted in (0.9, 0.95, 0.98, 0.99):
        reached = [point for point in points if point[2] >= wanted]
        threshold, coverage, accuracy = max(reached, key=lambda point: point[1]) if reached else (None, 0.0, None)
        rows.append((wanted, threshold, coverage, accuracy))
    yield table(("precision wanted", "least probability of the leaf", "share answered", "precision there"), rows)


def _slices(counts: Tally) -> Iterator[str]:
    for column, bands in counts.slices.items():
        if set(bands) == {UNKNOWN}:
            continue
        yield heading(f"By {COLUMNS_SAID[column]}")
        rows = sorted(bands.items(), key=lambda item: -item[1][0])[:MOST_BANDS]
        if column in BANDS:
            order = band_names(column)
            rows.sort(key=lambda item: order.index(item[0]))
        yield table((COLUMNS_SAID[column], "products", "exact path"), ((b, n, hits / n) for b, (n, hits) in rows))


def _explained(explainer: "Explainer", right: Sequence[Any], wrong: Sequence[Any]) -> Iterator[str]:
    if not explainer.attends:
        return
    chosen = [_of_different_paths(rows) for rows in (right, wrong)]
    strips = explainer.strips([row for rows in chosen for row in rows])
    for kind, rows in zip(("right", "wrong"), chosen, strict=True):
        yield heading(f"Where it looked: {kind} answers")
        for row in rows:
            found = next(strips)
            said, true = format_path(row["category_path"]), format_path(row["true_category_path"])
            about = f"{row['product_id']}: {said} ({row['probability']:.3f})"
            about += "" if said == true else f"; labelled {true}"
            about += f"; {found.explains}" if found.explains else ""
            yield paragraph(about)
            if isinstance(found.drawing, str):
                yield paragraph(f"its picture cannot be shown: {found.drawing}")
            else:
                yield f'<img class="strip" alt="" src="{jpeg_uri(found.drawing, STRIP_BYTES)}">'
    if explainer.notes:
        yield paragraph(f"The model {'; '.join(explainer.notes)}.")


def _of_different_paths(rows: Sequence[Any]) -> list[Any]:
    by_path: dict[str, Any] = {}
    for row in rows:
        by_path.setdefault(format_path(row["category_path"]), row)
    return list(by_path.values())[:EXPLAINED]


def _new_paths(found: Mapping[CategoryPath, Sequence["Proposal"]], rows: Sequence[Any]) -> Iterator[str]:
    yield heading("Paths that the taxonomy does not have")
    yield paragraph(
        f"Of the {len(rows)} products of which the model thinks most that they belong nowhere, those for which it "
        "would spell another path than the taxonomy's if it were free to."
    )
    listed = list(found.items())
    head = ("path", "products", "highest probability")
    yield table(head, ((format_path(path), len(some), some[0].probability) for path, some in listed))
    for path, some in listed[:NEW_PATHS]:
        yield paragraph(format_path(path))
        yield gallery([
            (one.thumbnail, f"labelled {format_path(rows[one.row]['true_category_path'])}; {one.probability:.3f}")
            for one in some[:NEW_EACH]
        ])  # fmt: skip


def _label_errors(scored: ScoredRun, embeddings: str) -> Iterator[str]:
    yield heading("Likely label errors")
    uri = storage.join(storage.absolute(embeddings), OF_LABEL_ERRORS)
    if not storage.exists(uri):
        raise StorageError(f"{uri}: not there; run `atlas-ray similar --embeddings {embeddings} --label-errors` first")
    rows = open_table(uri, LABEL_ERRORS).read().slice(0, ERRORS).to_pylist()
    yield paragraph("Nearly the same product, labelled differently: one of the two labels is likely wrong.")
    shown = [
        (row[f"{side}product_id"], row[f"{side}category_path"], row["similarity"])
        for row in rows
        for side in ("", "other_")
    ]
    uris = image_uris(scored, [product for product, _, _ in shown])
    captions = [f"{product}: {format_path(path)} ({similarity:.3f})" for product, path, similarity in shown]
    yield gallery(list(zip(thumbnails([uris.get(product) for product, _, _ in shown]), captions, strict=True)))
