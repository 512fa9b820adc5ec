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
            ("low", pa.float64()),  # of the 95% interval, where there is one
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
        ("probability", pa.float64()),  # the highest
        ("product_ids", pa.list_(pa.string())),  # the surest first
    ]
)
"""The paths outside the taxonomy that the model would say were it free to, where the model is given."""


@holding("evaluate", "output", "run")
def evaluate(
    run: str, output: str | None = None, *, model: str | None = None, embeddings: str | None = None
) -> dict[str, PathMetrics]:
    """Measure a scoring run, for each split and for all labelled products together.

    Products that the model was fitted on are measured in the split train alone; elsewhere they are told, listed and
    left out. Writes below the output `evaluation/report.html`, `evaluation/metrics.json`, the `TABLES`, where products
    are left out `LEFT_OUT`, and with a model that spells paths `NEW_PATHS`.

    Args:
        run: The output of a finished scoring run.
        output: Where `evaluation/` goes; the run itself where None.
        model: The model of the run: with it the report shows where it looked, and which paths outside
            the taxonomy it would have said.
        embeddings: What `atlas-ray embed` wrote: with it the report lists likely label errors.

    Raises:
        CatalogError: if the run is not finished, or no product had a label and was not trained on.
        TaxonomyError: if no label is in the run's taxonomy.
        ArtifactError: if the model cannot be read, or is not the run's.
    """
    scored = open_scored(run)
    notes = [note for note in [scored.match_labels()] if note]
    folder = storage.join(storage.absolute(output) if output else scored.uri, "evaluation")
    found = _tally(scored, folder)
    tallies = found.by_split
    if not tallies:
        seen = f"the model was fitted on all {found.left_out.total()} labelled products"
        why = seen if found.left_out else "no product of its catalogue has a label"
        raise CatalogError(f"{scored.uri}: {why}, so there is nothing to compare")
    order = sorted(tallies, key=lambda name: (_place(name), name))
    metrics = {name: replace(_measured(tallies[name]), left_out=_left_out(found, name)) for name in order}
    notes += _seen(found, folder)
    for note in notes:
        tell(note)
    summary = {
        split: {name: value for name, value in asdict(one).items() if name != "paths"} for split, one in metrics.items()
    }
    storage.write_bytes(storage.join(folder, "metrics.json"), json.dumps(summary, indent=1).encode())
    for name, rows in _tables(tallies, metrics).items():
        _write(folder, name, pa.Table.from_pylist(rows, schema=TABLES[name]))
    storage.delete_file(storage.join(folder, "new_paths.parquet"))  # of an earlier evaluation, maybe of another model
    proposed = write_page(folder, scored, found, metrics, notes, model=model, embeddings=embeddings)
    if proposed is not None:
        _write(folder, "new_paths", pa.Table.from_pylist(proposed, schema=NEW_PATHS))
    return metrics


def _tally(scored: ScoredRun, folder: str) -> Tallies:
    """Count, and list the products that are left out."""
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


def _left_out(found: Tallies, split: str) -> int:
    return found.left_out.total() if split in (ALL, HELD_OUT) else found.left_out[split]


def _seen(found: Tallies, folder: str) -> list[str]:
    """Return in sentences which products the model was trained on."""
    notes = []
    for split, count in found.left_out.items():
        where = "without a split" if split == "none" else f"of the split {split!r}"
        notes.append(
            f"{count} labelled products {where} are left out of all figures: the model was fitted on them; "
            f"{folder}/{FITTED}.parquet lists them"
        )
    one = found.by_split[found.headline]
    if one.fitted:
        notes.append(f"the model was fitted on {one.fitted} of the {one.pairs.total()} products of the headline")
    if found.unknown:
        notes.append(
            f"not known whether the model was fitted on {found.unknown} of the labelled products: it was imported, or "
            "it or the run is of an older version"
        )
    return notes


def _write(folder: str, name: str, table: pa.Table) -> None:
    storage.write_table(storage.join(folder, f"{name}.parquet"), table)


def _measured(one: Tally) -> PathMetrics:
    whole, *levels = one.trust
    return replace(
        measure(one.pairs),
        calibration_error=whole.expected_error,
        level_calibration_errors=tuple(level.expected_error for level in levels),
        answered=one.answered / one.pairs.total(),
        precision=one.held / max(one.answered, 1),
        intervals=intervals(one.pairs),
        fitted=one.fitted,
    )


def _tables(tallies: Mapping[str, Tally], metrics: Mapping[str, PathMetrics]) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for split, one in metrics.items():
        counts = tallies[split]
        tables["headline"] += _of(split, _headline(one))
        tables["levels"] += _of(split, _levels(one))
        tables["paths"] += _of(
            split, ({"category_path": list(row.path), **asdict(row), "missed": row.missed} for row in one.paths)
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
            split, ({"level": level, **asdict(bin_)} for level, found in enumerate(counts.trust) for bin_ in found.bins)
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


def _headline(one: PathMetrics) -> Iterator[dict[str, Any]]:
    for name in HEADLINE:
        low, high = one.intervals.get(name, (None, None))
        yield {"figure": name, "value": getattr(one, name), "low": low, "high": high}


def _levels(one: PathMetrics) -> Iterator[dict[str, Any]]:
    errors = one.level_calibration_errors[: len(one.levels)]
    for level, (accuracy, f1, error) in enumerate(zip_longest(one.levels, one.level_macro_f1, errors), 1):
        low, high = one.intervals.get(f"level_{level}", (None, None))
        yield {
            "level": level, "accuracy": accuracy, "low": low, "high": high, "macro_f1": f1, "calibration_error": error
        }  # fmt: skip


def _of(split: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"split": split, **row} for row in rows]
