"""Evaluation of a scoring run against the labels that its catalogue had: tables, and a page to read."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atlas_ray.errors import CatalogError, tell
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics import PathMetrics, common_prefix, measure
from atlas_ray.metrics.intervals import intervals
from atlas_ray.reports.evaluation_page import write_page
from atlas_ray.runs.scored import ScoredRun, open_scored
from atlas_ray.runs.tally import ALL, HELD_OUT, Tallies, Tally, tally
from atlas_ray.schemas import CATEGORY_PATH

SPLITS = ("train", "val", "test", "none", HELD_OUT, ALL)
"""In the order that they are shown in; others come before the last ones."""
FITTED = "fitted"
"""The table of the products that are left out since the model was fitted on them (`LEFT_OUT`)."""
HEADLINE = (
    "products", "unscored", "exact", "hierarchical_f1", "macro_f1", "calibration_error", "answered", "precision",
)  # fmt: skip
"""Fields of `PathMetrics`."""
TABLES: dict[str, pa.Schema] = {
    "headline": pa.schema(
        [
            ("split", pa.string()),
            ("figure", pa.string()),
            ("value", pa.float64()),
            ("low", pa.float64()),  # of the 95% interval, if there is one
            ("high", pa.float64()),
        ]
    ),
    "levels": pa.schema(
        [
            ("split", pa.string()),
            ("level", pa.int32()),
            ("accuracy", pa.float64()),
            ("low", pa.float64()),  # of the accuracy's 95% interval
            ("high", pa.float64()),
            ("macro_f1", pa.float64()),
            ("calibration_error", pa.float64()),
        ]
    ),
    "paths": pa.schema(
        [
            ("split", pa.string()),
            ("category_path", CATEGORY_PATH),
            ("precision", pa.float64()),
            ("recall", pa.float64()),
            ("f1", pa.float64()),
            ("support", pa.int64()),
            ("predicted", pa.int64()),
            ("missed", pa.int64()),
        ]
    ),
    "confusions": pa.schema(
        [
            ("split", pa.string()),
            ("true_category_path", CATEGORY_PATH),
            ("category_path", CATEGORY_PATH),
            ("products", pa.int64()),
            ("names_lost", pa.int64()),
        ]
    ),
    "reliability": pa.schema(
        [
            ("split", pa.string()),
            ("level", pa.int32()),  # 0: the whole path
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("count", pa.int64()),
            ("probability", pa.float64()),
            ("accuracy", pa.float64()),
        ]
    ),
    "risk_coverage": pa.schema(
        [("split", pa.string()), ("threshold", pa.float64()), ("coverage", pa.float64()), ("accuracy", pa.float64())]
    ),
    "slices": pa.schema(
        [
            ("split", pa.string()),
            ("column", pa.string()),
            ("band", pa.string()),
            ("products", pa.int64()),
            ("accuracy", pa.float64()),
        ]
    ),
}
"""What is written beside `metrics.json`, a Parquet file each."""
NEW_PATHS = pa.schema(
    [
        ("split", pa.string()),
        ("category_path", CATEGORY_PATH),
        ("products", pa.int64()),
        ("probability", pa.float64()),  # the highest of a product
        ("product_ids", pa.list_(pa.string())),  # the most probable first
    ]
)
"""The paths outside the taxonomy that a model would spell without constraints."""


@holding("evaluate", "output", "run")
def evaluate(
    run: str, output: str | None = None, *, model: str | None = None, embeddings: str | None = None
) -> dict[str, PathMetrics]:
    """Measure a scoring run, for each split and for all labelled products together.

    Products that the model was fitted on are measured only in the split train; in others they are counted, listed and
    left out. If a product's label is above the leaf, any leaf below it is right: the answer is judged at the level of
    the label. Writes `evaluation/report.html`, `evaluation/metrics.json` and the `TABLES` into the output, `LEFT_OUT`
    if products are left out, and `NEW_PATHS` with a model that spells paths.

    Args:
        run: The output of a finished scoring run.
        output: The folder of `evaluation/`; None for the run itself.
        model: The model of the run. With it the report shows where it looked, and which paths outside the taxonomy it
            would spell.
        embeddings: The output of `atlas-ray embed`. With it the report lists likely label errors.

    Raises:
        CatalogError: if the run is not finished, or no product had a label and was not trained on.
        TaxonomyError: if no label is in the run's taxonomy.
        ArtifactError: if the model cannot be read, or is not the run's.
    """
    scored = open_scored(run)
    notes = [note for note in [scored.match_labels()] if note]
    folder = storage.join(storage.absolute(output) if output else scored.uri, "evaluation")
    counts = _tally(scored, folder)
    tallies = counts.by_split
    if not tallies:
        seen = f"the model was fitted on all {counts.left_out.total()} labelled products"
        why = seen if counts.left_out else "no product of its catalogue has a label"
        raise CatalogError(f"{scored.uri}: {why}, so there is nothing to compare")
    order = sorted(tallies, key=lambda name: (_place(name), name))
    metrics = {name: replace(_measured(tallies[name]), left_out=_left_out(counts, name)) for name in order}
    notes += _seen(counts, folder)
    for note in notes:
        tell(note)
    summary = {
        split: {name: value for name, value in asdict(figures).items() if name != "paths"}
        for split, figures in metrics.items()
    }
    storage.write_bytes(storage.join(folder, "metrics.json"), json.dumps(summary, indent=1).encode())
    for name, rows in _tables(tallies, metrics).items():
        _write(folder, name, pa.Table.from_pylist(rows, schema=TABLES[name]))
    storage.delete_file(storage.join(folder, "new_paths.parquet"))  # of an earlier evaluation, maybe of another model
    proposed = write_page(folder, scored, counts, metrics, notes, model=model, embeddings=embeddings)
    if proposed is not None:
        _write(folder, "new_paths", pa.Table.from_pylist(proposed, schema=NEW_PATHS))
    return metrics


def _tally(scored: ScoredRun, folder: str) -> Tallies:
    """Count the products, and write those that are left out to a list."""
    storage.make_folder(folder)
    uri = storage.join(folder, f"{FITTED}.parquet")
    storage.delete_file(uri)  # of an earlier evaluation
    with contextlib.ExitStack() as files:
        writers: list[pq.ParquetWriter] = []

        def leave_out(rows: pa.Table) -> None:
            if not writers:
                stream = files.enter_context(storage.writing(uri))
                writers.append(files.enter_context(pq.ParquetWriter(stream, rows.schema)))
            writers[0].write_table(rows)

        return tally(scored, leave_out)


def _place(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else SPLITS.index(HELD_OUT)


def _left_out(tallies: Tallies, split: str) -> int:
    return tallies.left_out.total() if split in (ALL, HELD_OUT) else tallies.left_out[split]


def _seen(tallies: Tallies, folder: str) -> list[str]:
    """Return sentences about the products that the model was trained on, and about labels above the leaf."""
    notes = []
    for split, count in tallies.left_out.items():
        where = "without a split" if split == "none" else f"of the split {split!r}"
        notes.append(
            f"{count} labelled products {where} are left out of all figures: the model was fitted on them; "
            f"{folder}/{FITTED}.parquet lists them"
        )
    headline = tallies.by_split[tallies.headline]
    if headline.above:
        notes.append(
            f"{headline.above} of the {headline.pairs.total()} products of the headline are labelled above the leaf; "
            "each is judged at the level of its label"
        )
    if headline.fitted:
        notes.append(
            f"the model was fitted on {headline.fitted} of the {headline.pairs.total()} products of the headline"
        )
    if tallies.unknown:
        notes.append(
            f"not known whether the model was fitted on {tallies.unknown} of the labelled products: it was imported, "
            "or it or the run is of an older version"
        )
    return notes


def _write(folder: str, name: str, table: pa.Table) -> None:
    storage.write_table(storage.join(folder, f"{name}.parquet"), table)


def _measured(tally: Tally) -> PathMetrics:
    whole, *levels = tally.trust
    return replace(
        measure(tally.pairs),
        calibration_error=whole.expected_error,
        calibration_by_chance=whole.error_by_chance,
        level_calibration_errors=tuple(level.expected_error for level in levels),
        answered=tally.answered / tally.pairs.total(),
        precision=tally.held / max(tally.answered, 1),
        intervals=intervals(tally.pairs),
        fitted=tally.fitted,
        labelled_above=tally.above,
    )


def _tables(tallies: Mapping[str, Tally], metrics: Mapping[str, PathMetrics]) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for split, figures in metrics.items():
        counts = tallies[split]
        tables["headline"] += _of(split, _headline(figures))
        tables["levels"] += _of(split, _levels(figures))
        tables["paths"] += _of(
            split, ({"category_path": list(row.path), **asdict(row), "missed": row.missed} for row in figures.paths)
        )
        tables["confusions"] += _of(
            split,
            (
                {"true_category_path": list(true), "category_path": guess and list(guess), "products": count,
                 "names_lost": count * (len(true) - common_prefix(true, guess or ()))}
                for (true, guess), count in counts.pairs.most_common()
                if true != guess
            ),
        )  # fmt: skip
        tables["reliability"] += _of(
            split,
            (
                {"level": level, **asdict(bin_)}
                for level, reliability in enumerate(counts.trust)
                for bin_ in reliability.bins
            ),
        )
        names = ("threshold", "coverage", "accuracy")
        tables["risk_coverage"] += _of(
            split, (dict(zip(names, point, strict=True)) for point in counts.fine.risk_coverage())
        )
        tables["slices"] += _of(
            split,
            (
                {"column": column, "band": band, "products": size, "accuracy": hits / size}
                for column, bands in counts.slices.items()
                for band, (size, hits) in bands.items()
            ),
        )
    return tables


def _headline(figures: PathMetrics) -> Iterator[dict[str, Any]]:
    for name in HEADLINE:
        low, high = figures.intervals.get(name, (None, None))
        yield {"figure": name, "value": getattr(figures, name), "low": low, "high": high}


def _levels(figures: PathMetrics) -> Iterator[dict[str, Any]]:
    errors = figures.level_calibration_errors[: len(figures.levels)]
    for level, (accuracy, f1, error) in enumerate(zip_longest(figures.levels, figures.level_macro_f1, errors), 1):
        low, high = figures.intervals.get(f"level_{level}", (None, None))
        yield {
            "level": level, "accuracy": accuracy, "low": low, "high": high, "macro_f1": f1, "calibration_error": error
        }  # fmt: skip


def _of(split: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"split": split, **row} for row in rows]
