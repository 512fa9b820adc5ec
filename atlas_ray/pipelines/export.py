"""Export: a finished scoring run as one file for a shop's backend, and beside it what did not come so far."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.catalog.corrections import Corrections
from atlas_ray.errors import CatalogError, ConfigError, OutputError, StorageError, tell
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.io.lease import await_named_stores
from atlas_ray.publishing.answers import DELIVERED, READ, SOURCES, DeliveryRule, deliver
from atlas_ray.publishing.files import FORMATS, beside, format_of, writing_rows
from atlas_ray.runs.run_record import read_run
from atlas_ray.runs.scored import ScoredRun, catalog_of, find_taxonomies, open_scored
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.schemas import PATH_KEY_SEPARATOR, QUARANTINE
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy import Taxonomy, read_taxonomy

QUARANTINED = pa.schema([one for one in QUARANTINE if one.name != "image_id"])
"""The rows of the file beside the export."""
ON_THE_WAY = ("import", "fetch")
"""Stages of a catalogue's quarantine that name products and pictures which did not come into it."""
MAX_CATALOGS = 20
"""Largest number of catalogues, each a copy of the next one, that are followed back to their import."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """The run to export, the file, and which category it names of a product."""

    run: str = setting("finished scoring run, or a migrated one")
    output: str = setting("file to write: .csv, .jsonl or .parquet; with .gz or .zst after it, it is compressed")
    format: str | None = setting("format of the file, if its name does not tell it", None, choices=FORMATS)
    corrections: str | None = setting(
        "corrections that `review` saved: a .csv or .parquet with product_id and corrected_category_path", None
    )
    taxonomy: str | None = setting(
        "taxonomy that the categories' ids and the corrections are of; by default the run's and its catalogue's", None
    )
    prefer: str = setting(
        "what names the category of a product that has both a label and an answer", "label", choices=SOURCES
    )
    review_below: float = setting("probability below which an answer needs a review", 0.5, low=0, high=1)
    replace: bool = setting("replace a file that exists", False)
    max_quarantine_fraction: float = setting(
        "share of quarantined corrections above which the command exits with 3", 0.05, low=0, high=1
    )


@dataclass
class ExportReport:
    """The outcome of an export."""

    output: str
    products: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    """Counts of products by who names their category; `none` counts those without any."""
    needs_review: int = 0
    corrections: int = 0
    """The number of rows with a correction."""
    refused: Counter[str] = field(default_factory=Counter)
    """Counts of refused corrections by error code."""
    quarantine: str | None = None
    """The file of what did not come so far; None if all did."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Counts of its rows by stage and error code, as `import missing_images`."""

    @property
    def refused_fraction(self) -> float:
        """The share of the corrections that were refused."""
        return self.refused.total() / max(self.corrections, 1)


def export(config: ExportConfig) -> ExportReport:
    """Write the products of a run into one file, of the schema `DELIVERED`, and beside it the quarantine.

    Rows stream: memory grows with the corrections and the taxonomy alone. A file appears when it is complete, or not
    at all. The quarantine, `NAME.quarantine.ENDING`, has the rows that the import and the fetch of the run's catalogue
    refused, the run's own, and corrections that cannot be used.

    Raises:
        CatalogError: if there is no finished run, or no correction in the file of them.
        ConfigError: if nothing tells the format.
        OutputError: if the file exists, and is not to be replaced.
        TaxonomyError: if a taxonomy cannot be used.
    """
    await_named_stores([config])
    output = storage.absolute(config.output)
    kind, quarantine = format_of(output, config.format), beside(output, "quarantine")
    for uri in (output, quarantine):
        if storage.is_folder(uri):
            raise OutputError(f"{uri} is a folder; name a file in it")
        if not config.replace and storage.exists(uri):
            raise OutputError(f"{uri} exists; name another file, or replace it with --replace")
    scored = open_scored(config.run, target=None)
    catalog = catalog_of(scored)
    taxonomies = [read_taxonomy(config.taxonomy)] if config.taxonomy else list(find_taxonomies(scored, catalog))
    corrections = _corrections(config, taxonomies)
    report = ExportReport(output)
    paths = corrections.paths if corrections else {}
    rule = DeliveryRule.of(config.prefer, config.review_below, _ids(taxonomies), paths)
    seen = np.zeros(len(paths), bool)
    progress = ProgressDisplay("exporting", "products", total=scored.products.rows)
    with progress, writing_rows(output, kind, DELIVERED) as file:
        for batch in scored.batches(READ):
            seen[pc.index_in(batch["product_id"], rule.corrected).drop_null().to_numpy()] = True
            rows = deliver(batch, rule)
            file.write(rows)
            report.products += len(rows)
            progress.add({"products": len(rows)})
            report.needs_review += pc.sum(rows["needs_review"]).as_py() or 0
            report.sources.update(rows["source"].fill_null("none").to_pylist())
        if corrections:
            corrections.miss(seen)
            report.corrections = corrections.count
            report.refused = Counter(str(row["error_code"]) for row in corrections.quarantine)
        # The file of the products appears last: where it is, the export is whole.
        _write_quarantine(report, quarantine, kind, _refused(scored, catalog, corrections))
    return report


def _corrections(config: ExportConfig, taxonomies: list[Taxonomy]) -> Corrections | None:
    if config.corrections is None:
        return None
    if not taxonomies:
        raise ConfigError(f"nothing says which paths the corrections {config.corrections} may name; add --taxonomy")
    return Corrections.read(config.corrections, taxonomies[0])


def _ids(taxonomies: list[Taxonomy]) -> dict[str, str]:
    """Return the id of each path that has one, by its key; the first taxonomy that knows the path is asked."""
    found: dict[str, str] = {}
    several = 0
    for taxonomy in reversed(taxonomies):
        for path, ids in taxonomy.ids_of.items():
            key = PATH_KEY_SEPARATOR.join(path)
            found.pop(key, None)
            if len(ids) == 1:
                found[key] = ids[0]
            several += len(ids) > 1
    if several:
        tell(f"{several} category paths have several ids in the taxonomy; their products have no category_id")
    return found


def _refused(scored: ScoredRun, catalog: str | None, corrections: Corrections | None) -> Iterator[pa.Table]:
    """Yield what did not come so far: into the catalogue, through the run, and of the corrections."""
    for uri in _catalogs(catalog):
        for rows in _quarantine(uri):
            yield rows.filter(pc.is_in(rows["stage"], pa.array(ON_THE_WAY)))
    yield from _quarantine(scored.uri)
    if corrections:
        yield pa.Table.from_pylist(corrections.quarantine, schema=QUARANTINE).select(QUARANTINED.names)


def _catalogs(catalog: str | None) -> Iterator[str]:
    """Yield a catalogue, and those that it is a copy or a part of, each with its predecessor after it."""
    for _ in range(MAX_CATALOGS):
        if not catalog:
            return
        yield catalog
        try:
            run: Mapping[str, Any] = read_run(catalog) or {}
        except (CatalogError, StorageError) as error:
            tell(f"the catalogue's own account cannot be read, so earlier refusals are not known: {error}")
            return
        settings = run.get("config")
        before = settings.get("catalog") if isinstance(settings, dict) else None
        catalog = before if isinstance(before, str) and before != catalog else None


def _quarantine(uri: str) -> Iterator[pa.Table]:
    """Yield the quarantine of a run or a catalogue, and say so if it cannot be read."""
    folder = storage.join(uri, "quarantine")
    try:
        table = open_table(folder, QUARANTINE, may_be_missing=True)
    except (CatalogError, StorageError) as error:
        tell(f"a quarantine cannot be read, and is left out: {error}")
        return
    yield from table.batches(QUARANTINED.names)


def _write_quarantine(report: ExportReport, uri: str, kind: str, tables: Iterator[pa.Table]) -> None:
    """Write what was refused, if anything was; a file of an earlier export goes."""
    first = next((table for table in tables if len(table)), None)
    if first is None:
        storage.delete_file(uri)
        return
    report.quarantine = uri
    with writing_rows(uri, kind, QUARANTINED) as file:
        for rows in itertools.chain([first], tables):
            names = pc.binary_join_element_wise(rows["stage"], rows["error_code"], " ")
            report.quarantined.update(names.to_pylist())
            file.write(rows)
