"""The products table of a finished scoring run, opened to be read in a stream."""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.errors import CatalogError, StorageError, TaxonomyError
from atlas_ray.formats.table_files import parquet_files
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.runs.run_record import read_run
from atlas_ray.schemas import CATEGORIZED, PATH_KEY_SEPARATOR, path_keys
from atlas_ray.taxonomy import CategoryPath, Taxonomy, match_labels, read_taxonomy

BATCH_ROWS = 16_384
PREDICTED = "predicted_taxonomy.json"
"""The taxonomy file that holds the paths a run may answer with."""
NEEDED = ("product_id", "category_path", "probability")
MAX_MIGRATIONS = 20
"""Largest number of successive migrations that are followed back to the catalogue."""


@dataclass(frozen=True)
class ScoredRun:
    """The output of `atlas-ray score`."""

    uri: str
    run: dict[str, Any]
    """The content of `run.json`."""
    products: Table
    """The products table, of schema `CATEGORIZED`; a column that an older version did not write is null."""

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the run: catalog, model_id, taxonomy_id and more."""
        found = self.run.get("identity")
        return found if isinstance(found, dict) else {}

    @property
    def thresholds(self) -> dict[str, float] | None:
        """The least probability of each label that the run applies; None for a run of category paths."""
        found = self.identity.get("thresholds")
        return {str(name): float(least) for name, least in found.items()} if isinstance(found, dict) else None

    @property
    def target(self) -> str:
        """What the run answers, one of `TARGETS`."""
        return "path" if self.thresholds is None else "labels"

    @functools.cached_property
    def predicted(self) -> Taxonomy | None:
        """The paths that the run may answer with; None for a run of an older version, which does not record them."""
        uri = storage.join(self.uri, PREDICTED)
        return read_taxonomy(uri) if storage.exists(uri) else None

    @functools.cached_property
    def above_leaves(self) -> pa.Array:
        """The keys (`path_keys`) of the nodes above the leaves that the run may answer with."""
        nodes = self.predicted.children if self.predicted else ()
        return pa.array([PATH_KEY_SEPARATOR.join(path) for path in nodes if path], pa.string())

    def match_labels(self) -> str | None:
        """Compare the products' labels with the paths that the run may answer with.

        Returns:
            A sentence about labels and products that no answer can be right for; None if there are none, or if the
            run is of an older version that does not record the paths.

        Raises:
            TaxonomyError: if no label is in the run's taxonomy.
        """
        if self.predicted is None:
            return None
        labels = Counter[CategoryPath]()
        for batch in self.batches(["true_category_path"]):
            for key in pc.value_counts(path_keys(batch["true_category_path"].drop_null())).to_pylist():
                labels[tuple(key["values"].split(PATH_KEY_SEPARATOR))] += key["counts"]
        return match_labels(
            labels, self.predicted, labelled="its products", predicted=f"the run {self.uri}",
            leaves_only=self.target == "labels",
        )  # fmt: skip

    def batches(self, columns: Sequence[str], where: pc.Expression | None = None) -> Iterator[pa.RecordBatch]:
        """Yield some columns of the products in batches; few of them are held at a time.

        Args:
            columns: Which.
            where: A filter of rows by these columns.

        Raises:
            CatalogError: if a file is damaged.
        """
        for table in self.products.batches(columns, where=where, batch_rows=BATCH_ROWS):
            yield from table.combine_chunks().to_batches()


def open_scored(uri: str, target: str | None = "path") -> ScoredRun:
    """Open a finished scoring run.

    Args:
        uri: Its folder.
        target: What it has to answer, one of `TARGETS`; None where either will do.

    Raises:
        CatalogError: if there is none, it answers something else, or its products table is damaged or of another kind.
    """
    uri = storage.absolute(uri)
    run, folder = read_run(uri), storage.join(uri, "products")
    if run is None or not parquet_files(folder):
        raise CatalogError(f"{uri} is no finished scoring run; run `atlas-ray score` to its end first")
    table = open_table(folder, CATEGORIZED)
    for name in NEEDED:
        if table.files and all(file.type_of(name) is None for file in table.files):
            raise CatalogError(f"{folder}: no column {name!r}, so this is no scoring run; name one with --run")
    if table.unusable_rows:
        raise CatalogError(
            f"{folder}: {table.unusable_rows} rows have no product_id, so this is no scoring run's table"
        )
    scored = ScoredRun(uri, run, table)
    if target is not None and scored.target != target:
        kinds = {"path": "category paths", "labels": "labels"}
        raise CatalogError(f"{uri} is a run of {kinds[scored.target]}, and one of {kinds[target]} is needed here")
    return scored


def catalog_of(scored: ScoredRun) -> str | None:
    """Return the catalogue that a run scored; of a migrated run, the one of the run that was migrated."""
    for _ in range(MAX_MIGRATIONS):
        if catalog := scored.identity.get("catalog"):
            return str(catalog)
        try:
            scored = open_scored(str(scored.identity.get("run") or ""), None)
        except (CatalogError, StorageError):
            break
    return None


def find_taxonomies(scored: ScoredRun | None, catalog: str | None) -> Iterator[Taxonomy]:
    """Yield the taxonomies of a run and of its catalogue that can be read: first the one that corrections are of.

    Of a migrated run that is its new taxonomy, which the catalogue need not have yet; of another one the catalogue's.
    """
    places = [storage.join(catalog, "taxonomy.json")] if catalog else []
    if scored is not None:
        predicted = storage.join(scored.uri, PREDICTED)
        places = [predicted, *places] if "run" in scored.identity else [*places, predicted]
    for place in places:
        with contextlib.suppress(TaxonomyError, StorageError):
            if storage.exists(place):
                yield read_taxonomy(place)
