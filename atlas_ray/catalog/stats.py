"""Statistics of a catalogue: counts of paths, texts, pictures, languages and prices, in one pass over each table."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.catalog.repeats import Repeats, Sample
from atlas_ray.io import storage
from atlas_ray.io.lease import await_named_stores
from atlas_ray.runtime.tables import open_catalog
from atlas_ray.schemas import PATH_KEY_SEPARATOR, path_keys
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy import CategoryPath

READ = (
    "title", "description", "price", "currency", "brand", "sku", "availability", "image_uris", "category_path",
    "category_paths", "split", "store",
)  # fmt: skip
FIELDS = ("title", "description", "image_uris", "price", "brand", "sku", "availability", "category_path", "split")
"""The columns of which the missing values are counted."""
MODALITIES = ("title", "description", "picture")
LANGUAGE_SAMPLE, PRICE_SAMPLE = 5_000, 100_000
"""Products whose language is told, and prices from which the quartiles are."""
MAX_TEXT_CHARACTERS = 1_000
MIN_LETTERS = 12
"""Letters below which no language is told of a text."""
UNSURE, TOO_SHORT = "unsure", "too short to tell"
SURE = 0.8
"""The least probability of a language that is named."""
NO_CURRENCY = "(none)"


@dataclass(frozen=True, kw_only=True)
class StatsConfig(Settings):
    """The catalogue to describe, and the page."""

    catalog: str = setting("catalogue: its products and images tables")
    output: str = setting("page to write, such as stats.html")


@dataclass
class PathCount:
    """What stands below one category path."""

    path: CategoryPath
    products: int = 0
    pictures: int = 0
    splits: Counter[str] = field(default_factory=Counter)


@dataclass
class Prices:
    """The prices of one currency; quartiles are those of a sample."""

    currency: str
    products: int
    smallest: float
    quartiles: tuple[float, float, float]
    largest: float


@dataclass
class CatalogStats:
    """The numbers of a catalogue."""

    catalog: str
    products: int = 0
    labelled: int = 0
    pictures: int = 0
    """Rows of the images table."""
    measured: int = 0
    """Pictures whose size is known."""
    paths: list[PathCount] = field(default_factory=list)
    """The category paths, those with most products first."""
    labels: Counter[int] = field(default_factory=Counter)
    """Products by the number of their labels."""
    images: Counter[int] = field(default_factory=Counter)
    """Products by the number of their pictures."""
    missing: Counter[str] = field(default_factory=Counter)
    """Products without a value, by column."""
    modalities: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Products by what a model can look at."""
    stores: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    """Products of a sample by the language of their texts."""
    prices: list[Prices] = field(default_factory=list)
    repeated_ids: Repeats = field(default_factory=Repeats)
    repeated_titles: Repeats = field(default_factory=Repeats)
    repeated_pictures: Repeats = field(default_factory=Repeats)
    hashed: int = 0
    """Pictures whose content's hash is known; the others are told apart by their addresses."""


def catalog_stats(config: StatsConfig) -> CatalogStats:
    """Count what a catalogue holds. Memory grows with the category paths and the stores, not with the products.

    Raises:
        CatalogError: if the catalogue has no such tables.
    """
    await_named_stores([config])
    tables = open_catalog(
        storage.absolute(config.catalog), products=READ, images=("sha256", "width"), may_be_empty=True
    )
    stats = CatalogStats(tables.uri)
    paths: dict[str, PathCount] = {}
    texts, prices = Sample(LANGUAGE_SAMPLE), _PriceCount()
    for rows in tables.products.batches(["product_id", *READ]):
        rows = rows.combine_chunks()
        _count_products(stats, rows)
        _count_paths(paths, rows)
        ids = rows["product_id"].to_pylist()
        texts.add(ids, _texts(rows))
        prices.add(rows)
    for rows in tables.images.batches(["product_id", "image_uri", "sha256", "width"]):
        stats.pictures += len(rows)
        stats.measured += len(rows) - rows["width"].null_count
        stats.hashed += len(rows) - rows["sha256"].null_count
        stats.repeated_pictures.add(pc.coalesce(rows["sha256"], rows["image_uri"]).to_pylist())
    stats.paths = sorted(paths.values(), key=lambda one: (-one.products, one.path))
    stats.languages = tell_languages(texts.rows.tolist())
    stats.prices = prices.result()
    return stats


def _count_products(stats: CatalogStats, rows: pa.Table) -> None:
    pictures = pc.list_value_length(rows["image_uris"]).fill_null(0)
    given = {name: _is_given(rows[name]) for name in FIELDS}
    stats.products += len(rows)
    stats.labelled += pc.sum(given["category_path"]).as_py() or 0
    for name, column in given.items():
        stats.missing[name] += len(rows) - (pc.sum(column).as_py() or 0)
    several = pc.list_value_length(rows["category_paths"])
    labels = pc.coalesce(several, given["category_path"].cast(pa.int32()))
    for counter, column in ((stats.labels, labels), (stats.images, pictures), (stats.stores, rows["store"])):
        for one in pc.value_counts(column.drop_null()).to_pylist():
            counter[one["values"]] += one["counts"]
    columns = zip(MODALITIES, (given["title"], given["description"], given["image_uris"]), strict=True)
    code = sum(column.to_numpy().astype(np.int64) << place for place, (_, column) in enumerate(columns))
    for value, count in zip(*np.unique(code, return_counts=True), strict=True):
        names = tuple(name for place, name in enumerate(MODALITIES) if int(value) >> place & 1)
        stats.modalities[names] += int(count)
    stats.repeated_ids.add(rows["product_id"].to_pylist())
    stats.repeated_titles.add(rows["title"].filter(given["title"]).to_pylist())


def _is_given(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which values there are: neither null, nor empty."""
    if pa.types.is_string(column.type):
        return pc.not_equal(column, "").fill_null(False)
    if pa.types.is_list(column.type):
        return pc.greater(pc.list_value_length(column), 0).fill_null(False)
    return column.is_valid()


def _count_paths(paths: dict[str, PathCount], rows: pa.Table) -> None:
    pictures = pc.list_value_length(rows["image_uris"]).fill_null(0)
    counted = pa.table(
        {"key": path_keys(rows["category_path"]), "split": rows["split"].fill_null("none"), "pictures": pictures}
    ).filter(rows["category_path"].is_valid())
    groups = counted.group_by(["key", "split"]).aggregate([("pictures", "sum"), ("pictures", "count")])
    for one in groups.to_pylist():
        path = paths.setdefault(one["key"], PathCount(tuple(one["key"].split(PATH_KEY_SEPARATOR))))
        path.products += one["pictures_count"]
        path.pictures += one["pictures_sum"]
        path.splits[one["split"]] += one["pictures_count"]


def _texts(rows: pa.Table) -> list[str]:
    """Return the beginning of each product's texts."""
    parts = [pc.utf8_slice_codeunits(rows[name].fill_null(""), 0, MAX_TEXT_CHARACTERS) for name in MODALITIES[:2]]
    texts: list[str] = pc.binary_join_element_wise(*parts, " ").to_pylist()
    return texts


def tell_languages(texts: list[str]) -> Counter[str]:
    """Count texts by their language, an ISO 639 code; those of few letters, and unsure ones, are counted apart."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # reads a model when it is imported

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found = Counter[str]()
    for text in texts:
        if sum(letter.isalpha() for letter in text) < MIN_LETTERS:
            found[TOO_SHORT] += 1
            continue
        language, probability = identifier.classify(text)
        found[language if probability >= SURE else UNSURE] += 1
    return found


class _PriceCount:
    """Prices by currency: how many, the ends, and a sample for what is between."""

    def __init__(self) -> None:
        self._samples: dict[str, Sample] = {}
        self._counts = Counter[str]()
        self._ends: dict[str, tuple[float, float]] = {}

    def add(self, rows: pa.Table) -> None:
        rows = rows.filter(rows["price"].is_valid())
        currencies = rows["currency"].fill_null(NO_CURRENCY)
        for currency in pc.unique(currencies).to_pylist():
            some = rows.filter(pc.equal(currencies, currency))
            prices = some["price"].to_numpy()
            low, high = self._ends.get(currency, (np.inf, -np.inf))
            self._ends[currency] = min(low, float(prices.min())), max(high, float(prices.max()))
            self._counts[currency] += len(prices)
            self._samples.setdefault(currency, Sample(PRICE_SAMPLE)).add(
                some["product_id"].to_pylist(), prices.tolist()
            )

    def result(self) -> list[Prices]:
        found = []
        for currency, count in self._counts.most_common():
            first, middle, third = np.quantile(self._samples[currency].rows.astype(np.float64), (0.25, 0.5, 0.75))
            low, high = self._ends[currency]
            found.append(Prices(currency, count, low, (float(first), float(middle), float(third)), high))
        return found
