"""Records of finished runs: `run.json`."""

import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.errors import RETRYABLE_CODES, CatalogError
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.version import __version__

PUBLISHED = "published.json"
"""Names the table of a warehouse that refers to files of the run, which therefore have to stay as they are."""
RUN = "run.json"
STREAMS = ("score", "filter", "duplicates", "embed", "fetch")
"""The commands over a catalogue's pictures."""
KEYS: dict[str, tuple[tuple[str, ...], str]] = {
    "job": ((), "Last word of the command."),
    "written_by": ((), "Version of this package."),
    "versions": ((), "Versions of Python and of the libraries that matter."),
    "started_at": ((), "When the command was started, or last resumed, in UTC."),
    "finished_at": ((), "When the run was finished, in UTC."),
    "config": ((), "Settings of the command."),
    "counts": ((), "Numbers of items by outcome; they balance."),
    "identity": (
        (*STREAMS, "migrate", "crawl"),
        "Inputs and settings that make the result; a resumed run has the same.",
    ),
    "seconds": (
        (*STREAMS, "migrate", "crawl"),
        "Seconds of the whole run and of its parts; those named `busy` are sums over processes.",
    ),
    "resumed_from": (STREAMS, "Number of pictures that earlier tries of the run had done."),
    "quarantined_by_code": ((*STREAMS, "crawl"), "Numbers of quarantined items by error code."),
    "unreadable_values": (
        (*STREAMS, "migrate", "relabel", "select"),
        "Values of the catalogue that could not be read, by table and column: their number, and an example.",
    ),
    "unusable_rows": (
        ("migrate", "relabel", "select"),
        "Number of rows of the catalogue without a key, which are in quarantine.",
    ),
    "without_picture_by_code": (
        ("score", "embed"),
        "Numbers of pictures that could not be read but were answered by their texts, by error code.",
    ),
    "previous": (
        ("score",),
        "Earlier run whose answers were carried over, with their numbers, or why none were; null without one.",
    ),
    "cascade": (
        ("score",),
        "What calibration measured of the answers by the texts alone (`threshold`, `precision`, `risk`, `coverage`, "
        "`products`), and the share of the catalogue's pictures that were read; null without `--cascade`.",
    ),
    "notes": (("score",), "Sentences about what the run cannot get right, such as labels outside the taxonomy."),
    "fitted_products_known": (("score",), "Whether it is known which products the model was fitted on."),
    "index": (("embed",), "Kind of the index: `exact` or `ivf`."),
    "source_id": (("fetch",), "Hash that changes with the catalogue."),
    "made_with_taxonomy_id": (("migrate",), "Taxonomy of the run that was migrated; null for a catalogue."),
    "undetermined_by_reason": (("migrate",), "Numbers of rows without a certain place by kind and reason."),
    "labels_id": (("crawl",), "Hash of the taxonomy, the mapping and the format."),
    "not_a_product": (("crawl",), "Numbers of pages without a product by reason."),
    "fields_by_origin": (
        ("crawl",),
        "Numbers of products by field and the part of the page that its value comes from.",
    ),
    "unmapped": (("crawl",), "Breadcrumbs that no mapping names, with their numbers of products."),
    "stores": (("crawl",), "Pages, products and a failure of each store."),
    "columns": (("import",), "Columns of the source that were read, by field."),
    "unused_columns": (("import",), "Columns of the source that no field was taken from."),
    "assumed": (("import",), "Sentences about assumptions made from the first rows."),
    "taxonomy_id": (("import", "relabel"), "Taxonomy of the labels; null without labels."),
    "encoding": (("import",), "Encoding that a text file was read with."),
    "encoding_assumed": (("import",), "Whether the encoding is a guess."),
    "unread": (("import",), "Values of optional fields that were left out, by field: their number, and an example."),
    "kept_first": (("import",), "Numbers of joined rows by the field whose first value was kept."),
    "unsure_paths": (("import",), "Category paths that were read as one and may be several."),
    "likely_separator": (("import",), "Separator that most category paths contain, if none contains the given one."),
    "few_products": (("import",), "Leaves with few products."),
    "not_leaves": (("import",), "Labels above the leaves of the taxonomy, with their numbers of products."),
    "untrained": (("import",), "Category paths without a product in train."),
}
"""The keys of `run.json`: the commands that write each, () for all, and a sentence."""


@dataclass(frozen=True)
class RunReport:
    """The outcome of a run over a catalogue's pictures, as `run.json` holds it."""

    output: str
    run: dict[str, Any]
    already_done: bool = False
    """Whether the output held a finished run of the same settings, so that nothing was done."""

    @property
    def counts(self) -> dict[str, int]:
        """Counts of the pictures: those that came in (`input`), and their outcomes."""
        return dict(self.run["counts"])

    @property
    def quarantined_fraction(self) -> float:
        """The share of pictures that are in quarantine, or that could not be read and were answered by texts."""
        unseen = sum(self.run.get("without_picture_by_code", {}).values())
        return float((self.counts["quarantined"] + unseen) / max(self.counts["input"], 1))


def may_pass(run: Mapping[str, Any]) -> int:
    """Return the number of pictures that a finished run could not read for reasons that may have passed."""
    codes = (run.get(name, {}) for name in ("quarantined_by_code", "without_picture_by_code"))
    return sum(int(count) for found in codes for code, count in found.items() if code in RETRYABLE_CODES)


def read_run(output: str) -> dict[str, Any] | None:
    """Return the content of `run.json`, or None if there is none.

    Raises:
        CatalogError: if it is damaged.
    """
    uri = storage.join(output, RUN)
    if not storage.exists(uri):
        return None
    try:
        run = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise CatalogError(f"{uri}: not JSON: {error}") from None
    if not isinstance(run, dict):
        raise CatalogError(f"{uri}: a {type(run).__name__}; expected the account of a run")
    return run


def write_run(output: str, job: str, began: float, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write `run.json`, which completes a run, and return it.

    Args:
        output: The run's folder.
        job: The last word of the command.
        began: The clock time of the start in seconds.
        fields: The other keys, of `KEYS`, with JSON values.
    """
    run = {
        "job": job,
        "written_by": f"atlas_ray {__version__}",
        "versions": {"ray": version("ray"), "python": platform.python_version(), "pyarrow": pa.__version__},
        "started_at": datetime.fromtimestamp(began, UTC).isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        **fields,
    }
    storage.write_bytes(
        storage.join(output, RUN), json.dumps(run, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    )
    return run


def timings(spans: Mapping[str, tuple[float, float, float]]) -> dict[str, float]:
    """Return the busy seconds of each stage's workers, and those of the stream from first read to last write.

    What is read before the model is loaded, and waits for it, does not count as the first read.
    """
    busy = {f"{stage}_busy": span[2] for stage, span in spans.items()}
    begins = [spans[stage][0] for stage in ("fetch", "decode", "predict") if stage in spans]
    if begins and "write" in spans:
        busy["first_read_to_last_write"] = spans["write"][1] - max(begins)
    return busy


def quarantine_codes(output: str) -> dict[str, int]:
    """Count the quarantine by error code."""
    return _codes(storage.join(output, "quarantine"), "error_code")


def picture_errors(output: str, table: str = "predictions") -> dict[str, int]:
    """Count the rows of a table whose picture could not be read, by error code."""
    return _codes(storage.join(output, table), "picture_error")


def _codes(table: str, name: str) -> dict[str, int]:
    codes = Counter[str]()
    for rows in open_table(table, pa.schema([(name, pa.string())]), may_be_missing=True).batches():
        counted = pc.value_counts(error_codes(rows[name].drop_null()))
        codes.update(dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)))
    return dict(codes)


def error_codes(errors: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the codes that errors begin with; an error is a code, or a code and a message."""
    return pc.list_element(pc.split_pattern(errors, ":", max_splits=1), 0)
