"""All parts of a source read, and the rows of each product brought together: here, or by Ray for a large source."""

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import tagged, text_hashes
from atlas_ray.catalog.parts import Part
from atlas_ray.catalog.reading import PartReport, Reading, fitting, lines_before, misfits
from atlas_ray.catalog.settling import Settler, Tally
from atlas_ray.catalog.sides import known_rows
from atlas_ray.catalog.table_reader import KNOWN, REFUSED, ROWS
from atlas_ray.formats.tables import Table

SMALL_BYTES = 64 * 1024 * 1024
"""The size up to which a source is read in this process: Ray would take longer to start."""
OWNER = "owner"
"""The column that rows are shuffled by."""
PARTITION_ROWS = 100_000
"""About how many rows are settled at a time."""


@dataclass(frozen=True)
class Earlier:
    """A table of an earlier catalogue whose rows are settled with those of the source."""

    table: Table
    kind: int
    """`KNOWN`, or `PRODUCT` and `PICTURE` of the catalogue that is updated."""
    number: int = 0
    """The number of the catalogue, of several whose products are `KNOWN`."""


def earlier_rows(batch: pa.Table, kind: int, number: int) -> pa.Table:
    """Return rows of a table of an earlier catalogue as `ROWS`; the arguments are as in `Earlier`."""
    if kind == KNOWN:
        batch = known_rows(batch, number)
    return tagged(batch, kind, ROWS)


def settle_source(
    reading: Reading, parts: Sequence[Part], settler: Settler, earlier: Sequence[Earlier] = ()
) -> tuple[list[PartReport], Tally]:
    """Read a source and settle its products.

    Args:
        reading: How the source is read.
        parts: Its parts.
        settler: What writes the products.
        earlier: Tables of earlier catalogues.

    Returns:
        The account of each part, and that of all products.
    """
    size = sum(part.bytes for part in parts) + sum(piece.bytes for one in earlier for piece in one.table.pieces())
    settle = _settle_here if size <= SMALL_BYTES else _settle_with_ray
    return settle(reading, parts, settler, earlier)


def _settle_here(
    reading: Reading, parts: Sequence[Part], settler: Settler, earlier: Sequence[Earlier]
) -> tuple[list[PartReport], Tally]:
    reports: list[PartReport] = []
    tables: list[pa.Table] = []
    for part in parts:
        report = PartReport(fitting(part, reports))
        tables += list(reading.read(report.part, report))
        reports.append(report)
    tables += [earlier_rows(batch, one.kind, one.number) for one in earlier for batch in one.table.batches()]
    settler = replace(settler, lines_before=lines_before(reports))
    return reports, settler.settle(pa.concat_tables([ROWS.empty_table(), *tables]), "")


@dataclass(frozen=True)
class _PartRows:
    """A part of the source, as `atlas_ray.runtime.source` reads it."""

    reading: Any
    """A reference to the reading, which may be large."""
    part: Part
    ledger: Any
    """The actor that takes the account of each part."""
    progress: Any
    """The actor that shows progress."""

    @property
    def rows(self) -> int:
        return self.part.rows

    @property
    def bytes(self) -> int:
        return self.part.bytes

    def tables(self) -> Iterator[pa.Table]:
        import ray

        report = PartReport(self.part)
        for table in ray.get(self.reading).read(self.part, report):
            self.progress.add.remote({"rows": len(table)})
            yield _owned(table)
        ray.get(self.ledger.put.remote(report))


def _owned(rows: pa.Table) -> pa.Table:
    """Add what the rows are shuffled by: their product, or, for refused ones that have none, their place."""
    place = rows["part"].to_numpy().astype(np.uint64) * np.uint64(2**40) + rows["number"].to_numpy().astype(np.uint64)
    nameless = (rows["kind"].to_numpy() == REFUSED) & pc.equal(rows["product_id"].fill_null(""), "").to_numpy()
    owner = np.where(nameless, place, text_hashes(rows["product_id"]))
    return rows.append_column(OWNER, pa.array(owner))


def _owned_earlier(rows: pa.Table, kind: int, number: int) -> pa.Table:
    return _owned(earlier_rows(rows, kind, number))


class _Ledger:
    """The accounts of the parts; that of a part that is read again replaces the one before."""

    def __init__(self) -> None:
        self._reports: dict[int, PartReport] = {}

    def put(self, report: PartReport) -> None:
        self._reports[report.part.number] = report

    def reports(self) -> list[PartReport]:
        return [report for _, report in sorted(self._reports.items())]


def _settle_with_ray(
    reading: Reading, parts: Sequence[Part], settler: Settler, earlier: Sequence[Earlier]
) -> tuple[list[PartReport], Tally]:
    import ray

    from atlas_ray.runtime.progress import ProgressDisplay
    from atlas_ray.runtime.session import connect

    connect()
    ledger: Any = ray.remote(num_cpus=0)(_Ledger).remote()
    with ProgressDisplay("importing", "rows", total=sum(part.rows for part in parts)) as display:
        read = functools.partial(_PartRows, ray.put(reading), ledger=ledger, progress=display.actor)
        dataset = _read([read(part) for part in parts])
        if any(part.continues for part in parts):
            dataset = _fitted(dataset, read, ledger)
            settler = replace(settler, lines_before=lines_before(ray.get(ledger.reports.remote())))
        tally = _shuffled(dataset, parts, settler, earlier)
    return ray.get(ledger.reports.remote()), tally


def _shuffled(dataset: Any, parts: Sequence[Part], settler: Settler, earlier: Sequence[Earlier]) -> Tally:
    """Bring the rows of each product together, with what earlier catalogues say of it, and settle them."""
    rows = sum(part.rows for part in parts) + sum(one.table.rows for one in earlier)
    pieces = [
        replace(piece, change=functools.partial(_owned_earlier, kind=one.kind, number=one.number))
        for one in earlier
        for piece in one.table.pieces(count=-(-one.table.rows // PARTITION_ROWS))
    ]
    if pieces:
        dataset = dataset.union(_read(pieces))
    partitions = 1 if settler.sides.rule.exact else -(-rows // PARTITION_ROWS)
    dataset = dataset.repartition(partitions, keys=[OWNER])
    settle = functools.partial(_settled, settler=settler)
    dataset = dataset.map_batches(settle, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    tally = Tally()
    for row in dataset.iter_rows():
        tally.merge(pickle.loads(row["tally"]))  # of our own task
    return tally


def _read(parts: Sequence[Any]) -> Any:
    from atlas_ray.runtime.source import TableSource, read_source

    return read_source(TableSource(lambda _: parts), blocks=len(parts))


def _fitted(dataset: Any, read: Callable[[Part], _PartRows], ledger: Any) -> Any:
    """Read all parts, and those again that do not fit to the part before them."""
    import ray

    dataset = dataset.materialize()
    while again := misfits(ray.get(ledger.reports.remote())):
        numbers = pa.array([part.number for part in again], pa.int32())
        good = dataset.map_batches(
            functools.partial(_without, parts=numbers), batch_size=None, batch_format="pyarrow", zero_copy_batch=True
        )
        dataset = good.union(_read([read(part) for part in again])).materialize()
    return dataset


def _without(rows: pa.Table, parts: pa.Array) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["part"], parts)))


def _settled(rows: pa.Table, settler: Settler) -> pa.Table:
    key = str(pc.min(rows[OWNER]))
    tally = settler.settle(pa.table([rows[name] for name in ROWS.names], schema=ROWS), key)
    return pa.table({"tally": pa.array([pickle.dumps(tally)], pa.binary())})
