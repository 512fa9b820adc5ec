"""A seeded, stratified split that needs no second pass, and one that keeps groups of products together."""

import random
from collections import Counter, defaultdict

import pyarrow as pa
import pyarrow.dataset as ds

from atlas_ray import storage
from atlas_ray.catalog.copy import copy_catalog
from atlas_ray.errors import ConfigError
from atlas_ray.records import drawn, path_keys
from atlas_ray.taxonomy import CategoryPath

SPLITS = ("train", "val", "test")
GOLDEN = 0.6180339887498949


def parse_shares(text: str) -> tuple[float, float, float]:
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


class StratifiedSplit:
    """Assigns products to splits as they stream by, each category path on its own.

    The products of a path follow a golden-ratio sequence with a seeded start, which fills every
    split in proportion after any number of products; memory is one count a path. The first product
    of a path always goes to train, so that no path is only ever tested.
    """

    def __init__(self, shares: tuple[float, float, float], seed: int) -> None:
        self._edges = (shares[0], shares[0] + shares[1])
        self._seed = seed
        self._seen: Counter[CategoryPath] = Counter()

    def assign(self, path: CategoryPath) -> str:
        """Return the split of the next product of this path."""
        position = self._seen[path]
        self._seen[path] += 1
        if position == 0:
            return "train"
        point = (drawn(self._seed, str(path)) + position * GOLDEN) % 1.0
        return SPLITS[(point >= self._edges[0]) + (point >= self._edges[1])]


def resplit(products: pa.Table, groups: pa.Table, shares: tuple[float, float, float], seed: int) -> pa.Array:
    """Return a split for each product by which no group is on two sides.

    A product that has a split keeps it, unless its group is on several sides: then those on the side
    that is measured stay (test before val before train), and the others get none. Test sets are
    published and compared with, so they may neither lose a product nor gain one; what is lost is a
    training product whose picture the test set shows.

    Labelled products without a split get one, each group as a whole, the largest groups first, in
    the shares within each category path. To split a whole catalogue anew, give its table with null
    in the column.

    Args:
        products: product_id, category_path and split of the products table.
        groups: product_id and group, of the products that share pictures.
        shares: Of train, val and test.
        seed: Of the draws; the order of the products is no matter.

    Returns:
        The new `split` column, in the products' order.
    """
    ids = products["product_id"].to_pylist()
    paths = path_keys(products["category_path"]).to_pylist()
    splits = products["split"].to_pylist()
    group_of = dict(zip(groups["product_id"].to_pylist(), groups["group"].to_pylist(), strict=True))
    units: defaultdict[int | str, list[int]] = defaultdict(list)  # rows that stay together
    for row, product_id in enumerate(ids):
        units[group_of.get(product_id, product_id)].append(row)

    unplaced = []
    for rows in units.values():
        sides = {splits[row] for row in rows} - {None}
        side = next((name for name in reversed(SPLITS) if name in sides), None)
        for row in rows:
            if splits[row] != side:
                splits[row] = side if side == "train" and paths[row] else None
        labelled = [row for row in rows if paths[row]]
        if side is None and labelled:
            unplaced.append(sorted(labelled, key=ids.__getitem__))
    unplaced.sort(key=lambda rows: (-len(rows), ids[rows[0]]))

    waiting = Counter(paths[row] for rows in unplaced for row in rows)
    placed = Counter((path, split) for path, split in zip(paths, splits, strict=True) if path and split)
    totals = waiting + Counter(path for path, split in zip(paths, splits, strict=True) if path and split)
    draws = random.Random(seed)
    for rows in unplaced:
        own = {paths[row] for row in rows}
        lacking = [
            sum(share * totals[path] - placed[path, name] for path in own)
            for name, share in zip(SPLITS, shares, strict=True)
        ]
        room = [max(0.0, lack - len(rows) + 1) for lack in lacking]
        if any(not placed[path, "train"] for path in own):
            side = "train"  # no path is only ever tested
        elif any(room):
            side = draws.choices(SPLITS, room)[0]
        else:
            side = SPLITS[lacking.index(max(lacking))]
        for row in rows:
            splits[row] = side
            placed[paths[row], side] += 1
    return pa.array(splits, pa.string())


def resplit_catalog(
    catalog: str, output: str, groups: pa.Table, shares: tuple[float, float, float], seed: int, *, anew: bool = False
) -> tuple[int, int]:
    """Write a copy of a catalogue's tables in which no group of products is on two sides of the split.

    Args:
        catalog: Its URI.
        output: Where the copy goes; what is there is replaced.
        groups: product_id and group, of the products that share pictures.
        shares: Of train, val and test, for products without a split.
        seed: Of the draws.
        anew: Whether products with a split get a new one, too.

    Returns:
        How many groups were on several sides, and how many products have another split now.
    """
    source = storage.locate(storage.join(catalog, "products"))
    table = ds.dataset(source.path, filesystem=source.filesystem, format="parquet")
    small = table.to_table(columns=["product_id", "category_path", "split"])
    before = small["split"].combine_chunks()
    if anew:
        small = small.set_column(2, "split", pa.nulls(len(small), pa.string()))
    after = resplit(small, groups, shares, seed)
    row = 0

    def with_split(part: pa.Table) -> pa.Table:
        nonlocal row
        row += len(part)
        return part.set_column(part.column_names.index("split"), "split", after.slice(row - len(part), len(part)))

    copy_catalog(catalog, output, with_split)
    split_of = dict(zip(small["product_id"].to_pylist(), before.to_pylist(), strict=True))
    sides: defaultdict[int, set[str | None]] = defaultdict(set)
    for product_id, group in zip(groups["product_id"].to_pylist(), groups["group"].to_pylist(), strict=True):
        sides[group].add(split_of.get(product_id))
    straddling = sum(len(found - {None}) > 1 for found in sides.values())
    return straddling, sum(a != b for a, b in zip(before.to_pylist(), after.to_pylist(), strict=True))
