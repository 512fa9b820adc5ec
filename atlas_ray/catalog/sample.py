"""Samples: a smaller catalogue in which every category path keeps its share."""

import time
from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array
from atlas_ray.catalog.copy import check_unused, copy_catalog
from atlas_ray.catalog.hashes import hash_texts
from atlas_ray.errors import ConfigError
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.runs.run_record import write_run
from atlas_ray.runtime.tables import Catalog, open_catalog
from atlas_ray.schemas import path_keys
from atlas_ray.settings import Settings, setting

UNLABELLED = ""
"""The key of products without a label, which are a stratum of their own."""
PRUNED_AT = 4
"""Candidates are pruned when they are this many times the sample's size."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Settings):
    """A sample of a catalogue."""

    catalog: str = setting("catalogue: its products and images tables")
    count: int = setting("number of products in the sample", low=1, high=100_000_000)
    seed: int = setting("random seed of the sample", 0, low=0, high=2**31)
    output: str = setting("folder of the new catalogue; it must not hold a catalogue yet")


@dataclass(frozen=True)
class SampleReport:
    """The outcome of a sample."""

    output: str
    products: int
    images: int
    of: int
    """The number of products of the catalogue."""
    paths: int
    """The number of category paths, all of which are in the sample."""
    unlabelled: int
    """The number of products in the sample without a label."""


@holding("sample", "config.output")
def sample(config: SampleConfig) -> SampleReport:
    """Write a catalogue of products drawn by a seed; each category path keeps its share, and at least one product.

    Products without a label are drawn as if they had a path of their own. The same seed draws the same products,
    whatever the order of the rows, and a larger sample has most of a smaller one's. The pictures stay where they are.
    Memory grows with the sample and the paths, not with the catalogue.

    Raises:
        CatalogError: if the catalogue has no such tables.
        ConfigError: if the sample is smaller than the number of category paths.
        OutputError: if the output holds a catalogue already.
    """
    began = time.time()
    catalog, output = storage.absolute(config.catalog), storage.absolute(config.output)
    check_unused(output)
    tables = open_catalog(catalog, needed=("category_path",), others=True, may_be_empty=True)
    sizes = _strata(tables)
    if len(sizes) > config.count:
        raise ConfigError(
            f"--count is {config.count}; the catalogue has {len(sizes)} category paths (products without a label count "
            "as one), and each keeps at least one product"
        )
    places = {key: place for place, key in enumerate(sizes)}
    quotas = allot(np.array(list(sizes.values()), np.int64), config.count)
    drawn = _Drawn(places, _limits(tables, places, quotas, config.seed), config.seed)
    copy_catalog(tables, output, drawn.products, change_images=drawn.images)
    report = SampleReport(
        output, drawn.counts["products"], drawn.counts["images"], sum(sizes.values()),
        len(sizes) - (UNLABELLED in sizes), drawn.counts["unlabelled"],
    )  # fmt: skip
    fields = {
        "config": asdict(config) | {"catalog": catalog},
        "counts": {"products": report.products, "images": report.images, "of": report.of, "paths": report.paths},
        "unusable_rows": tables.write_unusable(output, "read"),
        "unreadable_values": tables.account(),
    }
    write_run(output, "sample", began, fields)
    return report


def allot(sizes: Array, count: int) -> Array:
    """Return how many products of each stratum are drawn, (strata,): its share, at least 1, and `count` together.

    Args:
        sizes: (strata,) how many products each one has.
        count: How many are drawn, at least one a stratum; of a smaller catalogue all are.
    """
    count = min(count, int(sizes.sum()))
    quotas = np.ones(len(sizes), np.int64)
    while (left := count - int(quotas.sum())) > 0:
        # Those that have more than their share already, such as a rare path with its one product, get no more.
        open_ = quotas < sizes
        share = np.where(open_, sizes * (count / sizes[open_].sum()), 0)
        missing = np.maximum(np.minimum(share, sizes) - quotas, 0)
        if missing.sum() < 1:
            missing = np.where(open_, (sizes - quotas).astype(np.float64), 0)
        exact = missing * min(1.0, left / missing.sum())
        more = np.floor(exact).astype(np.int64)
        rest = min(left - int(more.sum()), int((missing > 0).sum()))
        if rest:
            largest = np.argsort(-(exact - more), kind="stable")
            more[largest[:rest]] += 1
        quotas = np.minimum(quotas + more, sizes)
    return quotas


def _strata(tables: Catalog) -> Counter[str]:
    """Count the products by the key of their path."""
    sizes = Counter[str]()
    for rows in tables.products.batches(["category_path"]):
        keys = path_keys(rows["category_path"]).fill_null(UNLABELLED)
        sizes.update({one["values"]: one["counts"] for one in pc.value_counts(keys).to_pylist()})
    return sizes


def _limits(tables: Catalog, places: dict[str, int], quotas: Array, seed: int) -> Array:
    """Return the largest hash of a product that is drawn, for each stratum."""
    strata, hashes = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    most = PRUNED_AT * int(quotas.sum())
    for rows in tables.products.batches(["product_id", "category_path"]):
        strata = np.concatenate([strata, _places(rows, places)])
        hashes = np.concatenate([hashes, hash_texts(rows["product_id"].to_pylist(), seed)])
        if len(strata) > most:
            strata, hashes = _smallest(strata, hashes, quotas)
    strata, hashes = _smallest(strata, hashes, quotas)
    limits = np.zeros(len(quotas), np.uint64)
    np.maximum.at(limits, strata, hashes)
    return limits


def _places(rows: pa.Table, places: dict[str, int]) -> Array:
    """Return the stratum of each product, (products,)."""
    keys = path_keys(rows["category_path"]).fill_null(UNLABELLED).combine_chunks().dictionary_encode()
    known = np.array([places[key] for key in keys.dictionary.to_pylist()], np.int64)
    found: Array = known[keys.indices.to_numpy()]
    return found


def _smallest(strata: Array, hashes: Array, quotas: Array) -> tuple[Array, Array]:
    """Return the products of each stratum with the smallest hashes, as many as its quota, each product once."""
    order = np.lexsort((hashes, strata))
    strata, hashes = strata[order], hashes[order]
    fresh = np.ones(len(strata), bool)
    fresh[1:] = (strata[1:] != strata[:-1]) | (hashes[1:] != hashes[:-1])
    strata, hashes = strata[fresh], hashes[fresh]
    first = np.searchsorted(strata, strata)
    kept = np.arange(len(strata)) - first < quotas[strata]
    return strata[kept], hashes[kept]


class _Drawn:
    """Keeps the rows of drawn products.

    Attributes:
        counts: Rows kept of each table, and products without a label.
    """

    def __init__(self, places: dict[str, int], limits: Array, seed: int) -> None:
        self._places, self._limits, self._seed = places, limits, seed
        self._ids: list[pa.Array] = []
        self.counts = Counter[str]()

    def products(self, rows: pa.Table) -> pa.Table:
        """Return those rows of the products table that are drawn."""
        if not len(rows):
            return rows
        hashes = hash_texts(rows["product_id"].to_pylist(), self._seed)
        kept = rows.filter(pa.array(hashes <= self._limits[_places(rows, self._places)]))
        self._ids += kept["product_id"].chunks
        self.counts["products"] += len(kept)
        self.counts["unlabelled"] += kept["category_path"].null_count
        return kept

    def images(self, rows: pa.Table) -> pa.Table:
        """Return those rows of the images table whose product is drawn."""
        ids = pa.chunked_array(self._ids, pa.string())
        kept = rows.filter(pc.is_in(rows["product_id"], ids.combine_chunks()))
        self.counts["images"] += len(kept)
        return kept
