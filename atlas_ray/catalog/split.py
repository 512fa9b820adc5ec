"""The sides of the split: train, val and test.

A product's side is a hash of its id, so that it does not depend on what else is imported, nor on its label; known
products keep the side that an earlier catalogue gave them.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.catalog.copy import copy_catalog
from atlas_ray.errors import CatalogError, ConfigError
from atlas_ray.formats.table_files import parquet_files
from atlas_ray.formats.tables import Table, current, open_table
from atlas_ray.io import storage
from atlas_ray.runtime.tables import SPLIT, open_catalog
from atlas_ray.schemas import PATH_KEY_SEPARATOR, PRODUCTS, hash_fractions

SPLITS = ("train", "val", "test")
SHARES = "65/5/30"
GOLDEN = 0.6180339887498949
Shares = tuple[float, float, float]


def parse_shares(text: str) -> Shares:
    """Read `65/5/30` as the shares of train, val and test.

    Raises:
        ConfigError: for anything but three numbers that are not negative, the first above 0.
    """
    try:
        parts = [float(part) for part in text.split("/")]
    except ValueError:
        parts = []
    if len(parts) != 3 or min(parts) < 0 or not parts[0] > 0:
        raise ConfigError(f"split {text!r}; expected TRAIN/VAL/TEST, such as 65/5/30")
    total = sum(parts)
    return parts[0] / total, parts[1] / total, parts[2] / total


def side_at(point: float, shares: Shares) -> str:
    """Return the split that a number from 0 to 1 falls in."""
    return SPLITS[(point >= shares[0]) + (point >= shares[0] + shares[1])]


def side_of(product_id: str, shares: Shares, seed: int) -> str:
    """Return the split that a product's id falls in, whatever else there is."""
    return side_at(float(hash_fractions(seed, [product_id])[0]), shares)


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """A rule that assigns a split to products without one; `split.json` holds it in a catalogue and its copies."""

    shares: str = SHARES
    """The shares of train, val and test."""
    seed: int = 0
    """The random seed of the split."""
    exact: bool = False
    """Whether each category path was split in exact shares, by the order of the rows."""
    previous: tuple[str, ...] = ()
    """The catalogues whose products kept their split."""

    @classmethod
    def of(cls, catalog: str) -> Self:
        """Read a catalogue's rule; the default one if it has none.

        Raises:
            CatalogError: if it cannot be read.
        """
        uri = storage.join(catalog, SPLIT)
        if not storage.exists(uri):
            return cls()
        try:
            rule = json.loads(storage.read_bytes(uri))
            return cls(**rule | {"previous": tuple(rule["previous"])})
        except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            raise CatalogError(
                f"{uri} is damaged ({type(error).__name__}: {error}); import the catalogue anew"
            ) from None

    def __post_init__(self) -> None:
        """Refuse invalid shares."""
        parse_shares(self.shares)

    def changed(self, *, shares: str | None, seed: int | None) -> Self:
        """Return the rule with other shares and another seed, if they are given."""
        return replace(self, shares=shares or self.shares, seed=self.seed if seed is None else seed)

    def write(self, catalog: str) -> None:
        """Put the rule into a catalogue."""
        storage.write_bytes(storage.join(catalog, SPLIT), json.dumps(asdict(self), indent=1).encode())

    def side_of(self, product_id: str) -> str:
        """Return the split that a product's id falls in."""
        return side_of(product_id, parse_shares(self.shares), self.seed)


class SplitAssigner(Protocol):
    """A method of assigning splits to products."""

    def assign(self, product_ids: Sequence[str], paths: Sequence[str], /) -> list[str]:
        """Return the splits of the next labelled products, whose paths are given as keys (`path_keys`)."""


class HashedSplit:
    """The split that a product's id falls in: the same in every import of the same seed and shares."""

    def __init__(self, shares: Shares, seed: int) -> None:
        self._shares, self._seed = shares, seed

    def assign(self, product_ids: Sequence[str], _paths: Sequence[str], /) -> list[str]:
        """Return the splits of products; their paths are no matter, so that a corrected label moves none."""
        return [side_at(point, self._shares) for point in hash_fractions(self._seed, product_ids).tolist()]


class StratifiedSplit:
    """Exact shares within each category path, for a catalogue that is imported once: the rows' order decides.

    The products of a path follow a golden-ratio sequence with a seeded start, which fills every
    split in proportion after any number of products; memory is one count a path. The first product
    of a path always goes to train, so that no path is only ever tested.
    """

    def __init__(self, shares: Shares, seed: int) -> None:
        self._shares, self._seed = shares, seed
        self._seen: Counter[str] = Counter()

    def assign(self, _product_ids: Sequence[str], paths: Sequence[str], /) -> list[str]:
        """Return the splits of the next products, given their paths."""
        different = list(dict.fromkeys(paths))
        names = [str(tuple(path.split(PATH_KEY_SEPARATOR))) for path in different]
        starts = dict(zip(different, hash_fractions(self._seed, names).tolist(), strict=True))
        splits = []
        for path in paths:
            position = self._seen[path]
            self._seen[path] += 1
            point = (starts[path] + position * GOLDEN) % 1.0
            splits.append(side_at(point, self._shares) if position else "train")
        return splits


def known_products(catalog: str) -> Table:
    """Open what an earlier catalogue knows of its products: product_id, category_path and split.

    Raises:
        CatalogError: if it has no such table.
    """
    folder = storage.join(current(catalog), "products")
    if not parquet_files(folder):
        raise CatalogError(f"{catalog}: no products table, so its split cannot be kept; --previous names a catalogue")
    columns = ("product_id", "category_path", "split")
    return open_table(folder, PRODUCTS, columns=columns, needed=columns, foreign=True)


def resplit(products: pa.Table, groups: pa.Table, shares: Shares, seed: int, known: Set[str] | None = None) -> pa.Array:
    """Return a split for each product by which no group is on two sides.

    A group stays where those of its products are that an earlier catalogue knows; new ones follow. Where the earlier
    ones, or all of a group that is new, are on several sides, the side that is measured stays (test before val before
    train), and the others get none. Test sets are published and compared with, so they may neither lose a product nor
    gain one that was trained on; what is lost is a training product whose picture the test set shows.

    Labelled products without a split get one, each group as a whole, by a hash of its smallest id. To split a whole
    catalogue anew, give its table with null in the column.

    Args:
        products: product_id, category_path and split of the products table.
        groups: product_id and group, of the products that share pictures.
        shares: Of train, val and test.
        seed: Of the hash; the order of the products is no matter.
        known: Those products of groups that an earlier catalogue has; None if nothing is known of one, and all
            that have a split keep it.

    Returns:
        The new `split` column, in the products' order.
    """
    ids = products["product_id"].to_pylist()
    labelled = products["category_path"].is_valid().to_pylist()
    splits = products["split"].to_pylist()
    group_of = dict(zip(groups["product_id"].to_pylist(), groups["group"].to_pylist(), strict=True))
    units: defaultdict[int | str, list[int]] = defaultdict(list)  # rows that stay together
    for row, product_id in enumerate(ids):
        units[group_of.get(product_id, product_id)].append(row)
    for rows in units.values():
        new = {row for row in rows if known is not None and ids[row] not in known}
        side = _measured(splits[row] for row in rows if row not in new)
        follow = new if side else set()
        side = side or _measured(splits[row] for row in rows)
        if side is None:
            follow, side = set(rows), side_of(min(ids[row] for row in rows), shares, seed)
        for row in rows:
            if splits[row] != side:
                splits[row] = side if labelled[row] and (side == "train" or row in follow) else None
    return pa.array(splits, pa.string())


def _measured(sides: Iterable[str | None]) -> str | None:
    """Return the side among several that is measured first: test before val before train; None if there is none."""
    present = set(sides)
    return next((name for name in reversed(SPLITS) if name in present), None)


def resplit_catalog(
    catalog: str, output: str, groups: pa.Table, rule: SplitRule, *, anew: bool = False
) -> tuple[int, int]:
    """Write a copy of a catalogue's tables in which no group of products is on two sides of the split.

    Args:
        catalog: Its URI.
        output: Where the copy goes; what is there is replaced.
        groups: product_id and group, of the products that share pictures.
        rule: How products without a split get one, and which catalogues know the others.
        anew: Whether products with a split get a new one, too.

    Returns:
        How many groups were on several sides, and how many products have another split now.

    Raises:
        CatalogError: if a catalogue that knows some products is not there any more.
    """
    tables = open_catalog(catalog, others=True)
    small = tables.products.read(["product_id", "category_path", "split"])
    before = small["split"].combine_chunks()
    if anew:
        small = small.set_column(2, "split", pa.nulls(len(small), pa.string()))
    after = resplit(small, groups, parse_shares(rule.shares), rule.seed, None if anew else _known(rule, groups))
    row = 0

    def with_split(part: pa.Table) -> pa.Table:
        nonlocal row
        row += len(part)
        return part.set_column(part.column_names.index("split"), "split", after.slice(row - len(part), len(part)))

    copy_catalog(tables, output, with_split)
    rule.write(output)
    split_of = dict(zip(small["product_id"].to_pylist(), before.to_pylist(), strict=True))
    sides: defaultdict[int, set[str | None]] = defaultdict(set)
    for product_id, group in zip(groups["product_id"].to_pylist(), groups["group"].to_pylist(), strict=True):
        sides[group].add(split_of.get(product_id))
    straddling = sum(len(found - {None}) > 1 for found in sides.values())
    return straddling, sum(a != b for a, b in zip(before.to_pylist(), after.to_pylist(), strict=True))


def _known(rule: SplitRule, groups: pa.Table) -> Set[str] | None:
    """Return which products of groups the earlier catalogues have; None if there is no earlier one."""
    if not rule.previous:
        return None
    known: set[str] = set()
    for catalog in rule.previous:
        for batch in known_products(catalog).batches(["product_id"]):
            known.update(batch["product_id"].filter(pc.is_in(batch["product_id"], groups["product_id"])).to_pylist())
    return known
