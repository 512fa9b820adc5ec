"""Answers carried over from an earlier run: what cannot have changed since then is not scored again.

One shuffle by product brings the pictures of a catalogue together with what became of them in the earlier run. The
outcome of a picture is carried over, its row as it was, if the picture is the same one (`atlas_ray.scoring.trust`) and
so are the texts of its product, if the model reads texts. If it was not read, since the texts alone were enough, these
decide alone. All other pictures make up the table that is then scored:

- those without an outcome: they are new;
- those that could not be read: they may be there now. What was read and refused, such as a damaged picture, is
  carried over, unless another version of this program refused it, which may have read fewer formats;
- those that cannot be compared, since nothing that identifies them was known when they were read;
- those that were filtered as zoomed, if anything else about the pictures of their product has changed: a product's
  least zoomed picture is scored if it has no other.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Booleans, Integers, numbered, or_null, row_at
from atlas_ray.errors import CatalogError, tell
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader
from atlas_ray.runs.run_record import read_run
from atlas_ray.runtime.checkpoint import UNSTREAMED
from atlas_ray.runtime.fetch import FETCH_STAGE
from atlas_ray.runtime.joined import NO_PICTURE, OF_PICTURES, with_products
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import ReadConfig
from atlas_ray.runtime.shuffle import FILTERED, IMAGE, OUTCOME, PRODUCT, QUARANTINED, by_product, is_small
from atlas_ray.runtime.sink import OutcomeSink
from atlas_ray.runtime.tables import Catalog
from atlas_ray.schemas import FILTERED as FILTERED_ROWS
from atlas_ray.schemas import IMAGES, PREDICTIONS, PRODUCTS, QUARANTINE, texts_ids
from atlas_ray.scoring.outcomes import is_spared
from atlas_ray.scoring.trust import TRUST, Identity
from atlas_ray.version import __version__

TO_SCORE = "to_score"
"""The folder with the pictures that the stream has to score."""
CARRIED_PICTURES = "carried"
"""The folder with the pictures that are carried over, and with `DONE`."""
DONE = "done.json"
"""The counts of a comparison that is complete."""
NEW, CHANGED, AGAIN = "new", "changed", "asked again"
TABLES = {
    "predictions": (PREDICTIONS, OUTCOME),
    "filtered": (FILTERED_ROWS, FILTERED),
    "quarantine": (QUARANTINE, QUARANTINED),
}
"""The tables of a run's outcomes: each one's schema, and the kind of its rows."""
NOT_OF_PICTURES = (
    "catalog", "input_rows", "target_precision", "decision_threshold", "thresholds", "cascade", "previous", "trust",
)  # fmt: skip
"""What a run is made of that no picture's outcome depends on: all else has to be the same."""
OUTCOMES = pa.unify_schemas([PREDICTIONS, QUARANTINE])
WHAT = pa.field("what", pa.string())
"""`NEW`, `CHANGED` or `AGAIN` of a picture to score, or the table that an outcome is carried over to."""


@dataclass(frozen=True)
class Previous:
    """A finished scoring run whose answers may be carried over."""

    uri: str
    run: Mapping[str, Any]
    """Its `run.json`."""

    def difference(self, identity: Mapping[str, Any]) -> str | None:
        """Return why none of its answers holds for a run of an identity; None if they may."""
        before = self.run.get("identity") or {}
        for name, value in identity.items():
            if name not in NOT_OF_PICTURES and before.get(name) != value:
                return f"{name} is {value!r}, there it was {before.get(name)!r}"
        return None


def open_previous(uri: str) -> Previous:
    """Open an earlier run.

    Raises:
        CatalogError: if it is not a finished scoring run.
    """
    uri = storage.absolute(uri)
    run = read_run(uri)
    if run is None or run.get("job") != "score":
        raise CatalogError(f"--previous {uri}: not a finished scoring run; name the output of `atlas-ray score`")
    return Previous(uri, run)


@dataclass(frozen=True)
class Carried:
    """What is left to score, and what is not."""

    to_score: Table
    pictures: Table
    """The pictures that are carried over."""
    counts: Mapping[str, int]
    """Pictures by `WHAT`."""

    def account(self) -> dict[str, Any]:
        """Return what `run.json` says of it."""
        return {
            "carried": {name: self.counts.get(name, 0) for name in TABLES},
            "to_score": {name: self.counts.get(name, 0) for name in (NEW, CHANGED, AGAIN)},
        }


def carry_over(
    previous: Previous, catalog: Catalog, output: str, texts: Sequence[str], trust: str, config: ReadConfig
) -> Carried:
    """Write the outcomes that still hold to the tables of this run, and open what is left to score.

    An earlier try of the run that has done so is gone on from.

    Args:
        previous: The earlier run.
        catalog: What is scored.
        output: The run's folder.
        texts: The texts that the model reads.
        trust: What pictures are compared by.
        config: How they are asked for.
    """
    connect()
    done = storage.join(output, CARRIED_PICTURES, DONE)
    if not storage.exists(done):
        _forget(output)
        counts = _compare_all(previous, catalog, output, texts, trust, config)
        storage.write_bytes(done, json.dumps(counts).encode())
    schema = pa.schema([*(IMAGES.field(name) for name in OF_PICTURES), *(PRODUCTS.field(name) for name in texts)])
    return Carried(
        open_table(storage.join(output, TO_SCORE), schema, may_be_missing=True),
        open_table(storage.join(output, CARRIED_PICTURES), schema, columns=OF_PICTURES, may_be_missing=True),
        json.loads(storage.read_bytes(done)),
    )


def _forget(output: str) -> None:
    """Delete what a comparison that was stopped has left."""
    for folder in (TO_SCORE, CARRIED_PICTURES):
        storage.delete_folder(storage.join(output, folder))
    for folder in TABLES:
        uris = storage.files(storage.join(output, folder))
        storage.delete_files(uri for uri in uris if uri.rpartition("/")[2].startswith(UNSTREAMED))


def _compare_all(
    previous: Previous, catalog: Catalog, output: str, texts: Sequence[str], trust: str, config: ReadConfig
) -> dict[str, int]:
    before = [
        (open_table(storage.join(previous.uri, name), schema, may_be_missing=True), kind)
        for name, (schema, kind) in TABLES.items()
    ]
    for folder in (TO_SCORE, CARRIED_PICTURES, *TABLES):
        storage.make_folder(storage.join(output, folder))
    total = catalog.products.rows + catalog.images.rows + sum(table.rows for table, _ in before)
    with ProgressDisplay("comparing", "pictures", total=catalog.images.rows) as display:
        progress = None if is_small(total) else display.actor
        compared = by_product(
            ((catalog.products, PRODUCT), (catalog.images, IMAGE), *before),
            shape(texts),
            total,
            functools.partial(
                _compare,
                texts=tuple(texts),
                filters=bool((previous.run.get("identity") or {}).get("zoom_model_id")),
                same_program=previous.run.get("written_by") == f"atlas_ray {__version__}",
                trust=trust,
                config=config,
                progress=progress,
            ),
        )
        split = functools.partial(split_compared, texts=tuple(texts))
        sink = OutcomeSink(output, split=split, prefix=UNSTREAMED, count=_count)
        compared.write(sink)
        if progress is None:
            display.add({"compared": sum(sink.counts.values())})
    return dict(sink.counts)


def shape(texts: Sequence[str]) -> pa.Schema:
    """Return the one shape in which rows of all tables are brought together, for a model that reads these texts."""
    fields = {field.name: field for field in (*IMAGES, *OUTCOMES, *(PRODUCTS.field(name) for name in texts))}
    return pa.schema([("kind", pa.int8()), *(field.with_nullable(True) for field in fields.values())])


def _compare(table: pa.Table, config: ReadConfig, progress: Any | None, **options: Any) -> pa.Table:
    with ObjectReader(
        threads=config.fetch_threads,
        timeout_s=config.timeout_s,
        attempts=3,
        store_retries=4,
        outage_s=config.outage_s,
        say=tell if progress is None else progress.say.remote,
    ) as reader:
        compared = compare(table, reader=reader, **options)
    if progress is not None:
        progress.add.remote({"compared": len(compared)})
    return compared


def compare(
    table: pa.Table, *, reader: ObjectReader, texts: Sequence[str], filters: bool, same_program: bool, trust: str
) -> pa.Table:
    """Tell which outcomes of some products' pictures still hold.

    Args:
        table: Rows of the products, the images, and the tables of the earlier run, tagged by their `kind`.
        reader: Asks for pictures.
        texts: The texts that the model reads.
        filters: Whether a zoom filter leaves pictures out.
        same_program: Whether this version of the program made the earlier run.
        trust: What pictures are compared by.

    Returns:
        A row a picture: what it was read by, the outcome that it had, and `WHAT`.
    """
    table = table.combine_chunks()
    kind = table["kind"].to_numpy()
    pictures = with_products(table.filter(pa.array(kind <= IMAGE)), texts)
    bare = pc.equal(pictures["image_uri"], NO_PICTURE).to_numpy()
    if not texts:
        pictures, bare = pictures.filter(pa.array(~bare)), bare[~bare]
    before = table.filter(pa.array(kind > IMAGE))
    owner, number = _numbered(pictures, before)
    count = len(pictures)
    row = row_at(number[count:], len(number))[number[:count]]  # (pictures,) of its outcome
    was = before.take(or_null(row))
    known, same_texts = row >= 0, np.ones(count, bool)
    new_texts = ~known
    if texts:
        ids = pa.array(texts_ids([pictures[name].to_pylist() for name in texts]))
        same_texts = _true(pc.equal(was["texts_id"], ids))
        new_texts = _true(pc.not_equal(was["texts_id"], ids))
    by_texts = bare | (_of_kind(was, OUTCOME) & _true(is_spared(was)))
    comparable = known & same_texts & ~by_texts & _was_read(was) & _true(was[TRUST[trust].column].is_valid())
    if not same_program:
        comparable &= ~_failed(was)
    same = known & same_texts & by_texts
    same[comparable], was = _asked(was, comparable, reader, trust)
    changed = known & ~same & (comparable | new_texts)
    if filters:
        unsettled = np.zeros(len(number), bool)  # (products,)
        unsettled[owner[:count][~same]] = True
        unsettled[owner[count:][~np.isin(number[count:], number[:count])]] = True
        same &= ~(_of_kind(was, FILTERED) & unsettled[owner[:count]])
    what = np.where(known, np.where(changed, CHANGED, AGAIN), NEW)
    for name, (_, its_kind) in TABLES.items():
        what[same & _of_kind(was, its_kind)] = name
    columns = {name: pictures[name] for name in (*OF_PICTURES, *texts)}
    columns |= {name: was[name] for name in OUTCOMES.names if name not in KEYS}
    return pa.table({**columns, WHAT.name: pa.array(what, WHAT.type)})


def _numbered(pictures: pa.Table, before: pa.Table) -> tuple[Integers, Integers]:
    """Return numbers of the products, and numbers of the pictures, of the rows of two tables, one after the other."""
    products = pa.chunked_array([*pictures["product_id"].chunks, *before["product_id"].chunks], pa.string())
    _, owner = numbered(products)
    ids = np.concatenate([one["image_id"].to_numpy() for one in (pictures, before)])
    _, number = np.unique(np.stack([owner, ids]), axis=1, return_inverse=True)
    return owner, number.reshape(-1)


def _asked(was: pa.Table, rows: Booleans, reader: ObjectReader, trust: str) -> tuple[Booleans, pa.Table]:
    """Compare some pictures with what they were; return the answers, and all outcomes with the etags that are known."""
    asked = was.filter(pa.array(rows))
    now: list[Identity] = TRUST[trust].ask(reader, asked["image_uri"].to_pylist())
    values = pa.array([value for value, _ in now], pa.string())
    etags = np.full(len(was), None, object)
    etags[rows] = [etag for _, etag in now]
    column = pc.coalesce(pa.array(etags, pa.string()), was["etag"])
    same = _true(pc.equal(values, asked[TRUST[trust].column]))
    return same, was.set_column(was.column_names.index("etag"), "etag", column)


def _was_read(was: pa.Table) -> Booleans:
    return _true(was["sha256"].is_valid()) | _true(pc.not_equal(was["stage"], FETCH_STAGE))


def _failed(was: pa.Table) -> Booleans:
    return _of_kind(was, QUARANTINED) | _true(was["picture_error"].is_valid())


def _of_kind(was: pa.Table, kind: int) -> Booleans:
    return _true(pc.equal(was["kind"], kind))


def _true(condition: Any) -> Booleans:
    """Return where a condition holds; null counts as no."""
    return np.asarray(condition.fill_null(False), bool)


def split_compared(table: pa.Table, texts: Sequence[str]) -> dict[str, pa.Table]:
    """Tell the pictures to score from those that are carried over, and these from their outcomes."""
    carried = pc.is_in(table["what"], pa.array(list(TABLES)))
    kept = table.filter(carried)
    tables = {
        name: kept.filter(pc.equal(kept["what"], name)).select(schema.names).cast(schema)
        for name, (schema, _) in TABLES.items()
    }
    left = table.filter(pc.invert(carried))
    return {**tables, CARRIED_PICTURES: kept.select(OF_PICTURES), TO_SCORE: left.select([*OF_PICTURES, *texts])}


def _count(table: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(table["what"])
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
