"""The plan of a run: its stream tried on a sample of its pictures, and from that what the whole will take.

The sample goes through the stages of the command itself, in as many processes as the run will have, and ends in memory:
nothing is written to the output. What an answer costs is so measured with the machine as busy as it will be.
"""

import itertools
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from atlas_ray.arrays import or_null
from atlas_ray.errors import CatalogError
from atlas_ray.formats.tables import Table
from atlas_ray.runtime.joined import NO_PICTURE
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.settings import PlanConfig, file_rows
from atlas_ray.runtime.shuffle import PARTITION_ROWS
from atlas_ray.runtime.sink import Split
from atlas_ray.runtime.source import Rows
from atlas_ray.runtime.tables import Catalog
from atlas_ray.runtime.workers import WorkerPlan, cluster_cores
from atlas_ray.schemas import image_ids

STAGES: Mapping[str, Mapping[str, str]] = {
    "score": {"fetch": "read", "decode": "decode", "predict": "decode and model"},
    "embed": {"fetch": "read", "decode": "decode", "embed": "decode and model"},
    "filter": {"fetch": "read", "decode": "decode", "judge": "decode and model"},
    "fetch": {"download": "download"},
}
"""The stages of each command: the name that a stage reports its time under, and what the plan calls it."""
BLOCKS_PER_WORKER, MAX_PICTURES = 8, 20_000
"""The size of the sample, unless it is given; and its most pictures then."""
PLACES = 16
"""The most places in a table that a sample is read from."""
NEGLIGIBLE_S = 1e-3
"""A stage that was busy no longer has nothing to do."""
SHUFFLE_S, SHUFFLE_ROWS_PER_S = 1.0, 40_000
"""What bringing rows together by product takes: seconds at the start, and rows a second and core; rough values."""


@dataclass(frozen=True)
class Stage:
    """A stage of a stream."""

    name: str
    pictures_per_s: float
    """Of one process."""
    processes: int
    memory_mib: float = 0.0
    """The most memory that a process of it held."""

    @property
    def rate(self) -> float:
        """Pictures a second of all its processes."""
        return self.pictures_per_s * self.processes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would take."""

    command: str
    pictures: int
    """The number of pictures that are left to do."""
    tried: int
    stages: Sequence[Stage]
    bottleneck: str
    pictures_per_s: float
    """Of the whole stream, once it flows."""
    workers: int
    threads: int
    gpus: int
    machines: int
    seconds: Mapping[str, float]
    """Seconds of the run: `start`, `stream`, `tables` (what comes after the stream) and `total`."""
    machine_hours: float
    cost: float | None
    """Of the whole run."""
    million_cost: float | None
    """Of a million pictures more, at the rate of the stream."""
    files: Mapping[str, int]
    """The number of files that are written, by folder."""
    bytes: Mapping[str, int]
    """Their bytes, by folder."""
    refused: Mapping[str, float]
    """The share of the sample that would come to quarantine, or be answered without its picture, by error code."""
    notes: Sequence[str] = field(default_factory=list)

    @property
    def refused_fraction(self) -> float:
        """The share of the sample that would be refused."""
        return sum(self.refused.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """Rows of a table, which are read as the table itself would be."""

    table: pa.Table
    whole: int
    """The number of rows that they stand for."""
    block_rows: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.table)

    def pieces(self, columns: Sequence[str] | None = None, count: int = 1) -> Sequence[Rows]:  # noqa: ARG002
        """Cut the rows into pieces of a block each."""
        table = self.table if columns is None else self.table.select(list(columns))
        return [_Part(table.slice(at, self.block_rows)) for at in range(0, len(table), self.block_rows)]


@dataclass(frozen=True)
class _Part:
    table: pa.Table

    @property
    def rows(self) -> int:
        return len(self.table)

    @property
    def bytes(self) -> int:
        return int(self.table.nbytes)

    def tables(self) -> Iterator[pa.Table]:
        yield self.table


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a command has tried."""

    command: str
    """A key of `STAGES`."""
    sample: Sample
    done: int
    """The number of pictures that an earlier try of the run did."""
    stages: Callable[[Any], ray.data.Dataset]
    """Makes the command's stream over the sample, without its sink; takes a `ProgressActor`."""
    split: Split
    workers: WorkerPlan
    rows_per_file: int
    shuffled: Sequence[float]
    """The rows of each shuffle by product that the run makes beside its stream."""
    opened_s: float
    """The seconds that opening took, Ray's start included."""
    notes: Sequence[str] = ()
    look: Callable[[pa.Table], Sequence[str]] = lambda _: ()
    """Returns further notes, about the outcomes of the sample."""


def sample_size(asked: int, plan: WorkerPlan, block_rows: int) -> int:
    """Return how many pictures to try."""
    return asked or min(BLOCKS_PER_WORKER * plan.workers * block_rows, MAX_PICTURES)


def sample_pictures(catalog: Catalog, count: int, block_rows: int, columns: Sequence[str] = ()) -> Sample:
    """Read pictures from several places of a catalogue, with columns of their products.

    Args:
        catalog: The catalogue.
        count: The number of pictures.
        block_rows: The number of pictures in a block.
        columns: Columns of the products, as `write_inputs` adds them; then a product without a picture has a row, too.

    Raises:
        CatalogError: if there is no picture.
    """
    if columns:
        products = spread(catalog.products, ("product_id", "image_uris", *columns), count)
        lists = products["image_uris"].combine_chunks()
        lengths = lists.value_lengths().fill_null(0).to_numpy()
        rows = np.repeat(np.arange(len(products)), np.maximum(lengths, 1))  # (pictures,) of products
        bare = (lengths == 0)[rows]
        at = np.full(len(rows), -1)
        at[~bare] = np.arange(int(lengths.sum()))
        uris = lists.flatten().take(or_null(at)).fill_null(NO_PICTURE)
        owners = products["product_id"].take(pa.array(rows))
        ids = pa.array(image_ids(owners.to_pylist(), uris.to_pylist()))
        pictures = pa.table(
            {"image_id": ids, "product_id": owners, "image_uri": uris}
            | {name: products[name].take(pa.array(rows)) for name in columns}
        )
        whole = round(len(pictures) / max(len(products), 1) * catalog.products.rows)
        pictures = pictures.slice(0, count)
    else:
        pictures, whole = spread(catalog.images, KEYS, count), catalog.images.rows
    if not len(pictures):
        raise CatalogError(f"{catalog.uri}: no product and no picture to try")
    return Sample(pictures.combine_chunks(), whole, block_rows)


def spread(table: Table, columns: Sequence[str], count: int) -> pa.Table:
    """Read about `count` rows, from the beginnings of row groups that lie evenly over a table."""
    pieces = table.pieces(columns, PLACES)
    places = np.unique(np.linspace(0, max(len(pieces) - 1, 0), PLACES).round().astype(int))[: len(pieces)]
    parts = [table.schema.empty_table().select(list(columns))]
    for number, place in enumerate(places):
        wanted = -(-(count - sum(map(len, parts))) // (len(places) - number))
        for rows in pieces[place].tables(batch_rows=max(wanted, 1)):
            parts.append(rows.slice(0, wanted))
            wanted -= len(parts[-1])
            if wanted <= 0:
                break
    return pa.concat_tables(parts)


def forecast(trial: Trial, config: PlanConfig) -> Plan:
    """Try the stream of a command, and tell what the whole run would take."""
    sample = trial.sample
    began = time.time()
    arrivals: list[tuple[float, int]] = []
    blocks: list[pa.Table] = []
    with ProgressDisplay("trying", "pictures", total=len(sample.table)) as display:
        stream: Any = trial.stages(display.actor).iter_batches(batch_size=None, batch_format="pyarrow")
        for block in stream:
            arrivals.append((time.time(), len(block)))
            blocks.append(block)
        spans, peaks = display.spans(), display.peaks()
    outcomes = pa.concat_tables(blocks)
    tried = len(outcomes)
    names = STAGES[trial.command]
    processes = trial.workers.workers
    stages = [
        Stage(name, tried / spans[span][2], processes, peaks.get(span, 0.0))
        for span, name in names.items()
        if span in spans and spans[span][2] > NEGLIGIBLE_S
    ]
    sizes, written = _written(trial.split(outcomes))
    stages.append(Stage("write", written, cluster_cores()))
    flowing_s, flowing_rows, flow = _flow(began, arrivals, processes)
    rate = flow or _slowest(stages).rate
    left = max(sample.whole - trial.done, 0)
    stream_s = flowing_s + max(left - flowing_rows, 0) / rate if left else 0.0
    return make_plan(
        command=trial.command,
        pictures=left,
        tried=tried,
        stages=stages,
        pictures_per_s=rate,
        workers=trial.workers,
        seconds={"start": trial.opened_s, "stream": stream_s, "tables": sum(map(shuffle_s, trial.shuffled))},
        files={name: math.ceil(left / file_rows(trial.rows_per_file, left)) for name in sizes},
        bytes={name: round(size / tried * left) for name, size in sizes.items()},
        refused=_refused(outcomes),
        notes=[*trial.notes, *trial.look(outcomes)],
        config=config,
    )


def shuffle_s(rows: float) -> float:
    """Return the seconds that it takes to bring rows together by product on the connected cluster."""
    return SHUFFLE_S + rows / SHUFFLE_ROWS_PER_S / (cluster_cores() if rows > PARTITION_ROWS else 1)


def make_plan(
    *,
    workers: WorkerPlan,
    seconds: Mapping[str, float],
    stages: Sequence[Stage],
    pictures_per_s: float,
    config: PlanConfig,
    **fields: Any,
) -> Plan:
    """Add to a plan what follows from its other figures."""
    total = sum(seconds.values())
    machines = sum(bool(node["Alive"]) for node in ray.nodes())
    hours, price = machines * total / 3600, config.price_per_hour
    return Plan(
        stages=stages,
        bottleneck=_slowest(stages).name,
        workers=workers.workers,
        threads=workers.threads,
        gpus=workers.gpus,
        machines=machines,
        seconds={**seconds, "total": total},
        machine_hours=hours,
        cost=None if price is None else hours * price,
        million_cost=None if price is None else machines * price * 1e6 / pictures_per_s / 3600,
        pictures_per_s=pictures_per_s,
        **fields,
    )


def _slowest(stages: Sequence[Stage]) -> Stage:
    whole = [stage for stage in stages if stage.name != "decode"]  # which is a part of another one
    return min(whole, key=lambda stage: stage.rate)


def _flow(began: float, arrivals: Sequence[tuple[float, int]], workers: int) -> tuple[float, int, float | None]:
    """Return when the stream began to flow: seconds and pictures by then, and pictures a second from then on.

    It flows once each process has given its first block. The rate is None if the sample ended before.
    """
    ends, rows = zip(*sorted(arrivals), strict=True)
    done = list(itertools.accumulate(rows))
    first = min(workers, len(ends)) - 1
    took = ends[-1] - ends[first]
    return ends[first] - began, done[first], (done[-1] - done[first]) / took if took > NEGLIGIBLE_S else None


def _written(tables: Mapping[str, pa.Table]) -> tuple[dict[str, int], float]:
    """Return the bytes of each folder's rows as Parquet, and pictures a second that are written."""
    sizes: dict[str, int] = defaultdict(int)
    started = time.perf_counter()
    for name, table in tables.items():
        if len(table):
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            sizes[name] = sink.getvalue().size
    rows = sum(map(len, tables.values()))
    return dict(sizes), rows / max(time.perf_counter() - started, 1e-6)


def _refused(outcomes: pa.Table) -> dict[str, float]:
    """Return the share of pictures with an error, by its code."""
    codes = Counter[str]()
    for name in {"error_code", "picture_error"}.intersection(outcomes.column_names):
        column = pc.list_element(pc.split_pattern(outcomes[name].drop_null(), ":", max_splits=1), 0)
        codes.update(column.to_pylist())
    codes.pop("zoomed", None)  # left out on purpose
    return {code: count / len(outcomes) for code, count in codes.most_common()}
