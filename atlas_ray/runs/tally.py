"""Counts of one pass over the products of a scoring run, for each split and for all splits together."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array
from atlas_ray.metrics import common_prefix
from atlas_ray.metrics.calibration import Reliability
from atlas_ray.runs.leaves import find_leaves, judged_paths, path_lengths
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.schemas import CATEGORY_PATH, PATH_KEY_SEPARATOR, path_keys
from atlas_ray.taxonomy import CategoryPath

Pairs = Counter[tuple[CategoryPath, CategoryPath | None]]
COLUMNS = (
    "true_category_path", "category_path", "split", "probability", "level_probabilities", "alternatives",
    "decided_level", "store", "price", "image_size_px", "zoomed_probability", "product_id", "fitted",
    "images_unread",
)  # fmt: skip
PAIR_SEPARATOR = "\x1e"
FINE_BINS = 1_000
"""The number of bins of the curve of risk against coverage."""
BANDS: dict[str, tuple[float, ...]] = {
    "price": (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000),
    "image_size_px": (0, 50, 100, 150, 200, 300, 500, 800, 1_200, 2_000, 4_000),
    "zoomed_probability": (0, 0.1, 0.25, 0.5, 0.75, 0.9),
}
"""The lower bounds of the slices by a number, by column."""
MAX_STORES = 1_000
"""The most stores that are counted by themselves; further ones are counted as `OTHER_STORES`."""
OTHER_STORES, UNKNOWN = "(other stores)", "(unknown)"
READ = (UNKNOWN, "pictures too", "texts alone")
"""The slices by what a run with a cascade has read of a product."""
ALL = "all"
HELD_OUT = "held out"
TRAIN = "train"
LEFT_OUT = pa.schema([("split", pa.string()), ("product_id", pa.string()), ("true_category_path", CATEGORY_PATH)])
"""Labelled products outside train that the model was fitted on: one row for each."""


@dataclass
class Tally:
    """The counts of a split."""

    pairs: Pairs = field(default_factory=Counter)
    """(true, predicted) paths; None if there is no prediction. For a label above the leaf the prediction is cut at its
    level (`judged_paths`)."""
    above: int = 0
    """The number of products whose label is above the leaf."""
    trust: list[Reliability] = field(default_factory=lambda: [Reliability()])
    """The reliability of the whole path's probability, then of each level's; as far as labels can judge them."""
    fine: Reliability = field(default_factory=lambda: Reliability(FINE_BINS))
    """The reliability of the whole path's probability, in fine bins."""
    answered: int = 0
    """The number of products with an answer, which may be an ancestor."""
    held: int = 0
    """The number of products whose answer is the true path, an ancestor of it, or below a label above the leaf."""
    slices: dict[str, dict[str, list[int]]] = field(default_factory=lambda: defaultdict(dict))
    """Counts by column and band: products, and those whose whole path is right."""
    fitted: int = 0
    """The number of products that the model was fitted on: those in train, and those of `ALL`."""


@dataclass
class Tallies:
    """The counts of a run."""

    by_split: dict[str, Tally]
    """`none` is of products without a split; `ALL` of all together; `HELD_OUT` of those of `ALL` that the model was not
    fitted on, if there is no split `test`."""
    left_out: Counter[str]
    """Products by split that are in none of them: outside train, and the model was fitted on them."""
    unknown: int
    """Products of which it is not known whether the model was fitted on them."""

    @property
    def headline(self) -> str:
        """The split whose figures come first: test, else what is held out, else all that there is."""
        return next(name for name in ("test", HELD_OUT, ALL) if name in self.by_split)


def tally(scored: ScoredRun, leave_out: Callable[[pa.Table], None] = lambda _: None) -> Tallies:
    """Count the labelled products of a finished scoring run.

    Memory grows with the number of different (true, predicted) pairs, not with the products.

    Args:
        scored: The run.
        leave_out: Takes rows of `LEFT_OUT`.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    left_out, unknown = Counter[str](), 0
    for batch in scored.batches(COLUMNS):
        labelled = batch.filter(pc.greater(pc.list_value_length(batch["true_category_path"]), 0))
        split = pc.fill_null(labelled["split"], "none")
        fitted = pc.fill_null(labelled["fitted"], False)
        unknown += labelled["fitted"].null_count
        leaked = pc.and_(fitted, pc.not_equal(split, TRAIN))
        if pc.any(leaked).as_py():
            out = labelled.filter(leaked)
            columns = [split.filter(leaked), out["product_id"], out["true_category_path"]]
            leave_out(pa.table(columns, schema=LEFT_OUT))
            left_out.update(split.filter(leaked).to_pylist())
            labelled = labelled.filter(pc.invert(leaked))
        if len(labelled):
            _count(labelled, tallies, scored.above_leaves)
    # Without a test split, only these figures leave out what the model was fitted on.
    if "test" in tallies or not (tallies and tallies[ALL].fitted):
        tallies.pop(HELD_OUT, None)
    return Tallies(dict(tallies), left_out, unknown)


def _count(labelled: pa.RecordBatch, into: dict[str, Tally], above_leaves: pa.Array) -> None:
    leaves, true = find_leaves(labelled), labelled["true_category_path"]
    above = pc.is_in(path_keys(true), above_leaves).to_numpy(zero_copy_only=False)
    judged, judged_level = judged_paths(leaves.paths, true, above), path_lengths(true)
    keys = pc.binary_join_element_wise(
        path_keys(true), pc.fill_null(path_keys(judged), ""), PAIR_SEPARATOR
    ).dictionary_encode()
    named = [_named(pair) for pair in keys.dictionary.to_pylist()]
    index = keys.indices.to_numpy()
    shared = np.array([common_prefix(true, guess or ()) for true, guess in named])[index]
    deep = np.array([max(len(true), len(guess or ())) for true, guess in named])[index]
    right = shared == deep
    scored = pc.and_(leaves.paths.is_valid(), leaves.probability.is_valid()).to_numpy(zero_copy_only=False)
    decided = pc.fill_null(labelled["decided_level"], 0).to_numpy(zero_copy_only=False)
    judgeable = np.where(above, np.minimum(decided, judged_level), decided)
    probability = leaves.probability.cast(pa.float64()).fill_null(0).to_numpy()
    # Where a migration left no levels, nothing says how sure they were: they count in no level's reliability.
    lengths = path_lengths(labelled["level_probabilities"])
    values = labelled["level_probabilities"].flatten().to_numpy(zero_copy_only=False)
    owner = np.repeat(np.arange(len(labelled)), lengths)
    start = lengths.cumsum() - lengths
    level = np.arange(len(owner)) - np.repeat(start, lengths)
    # What is judged at a level is as sure as its node there: the sum over the leaves below it.
    cut = above & (path_lengths(leaves.paths) > judged_level)
    known = cut & (lengths >= judged_level)
    probability = probability.copy()
    probability[known] = values[(start + judged_level - 1)[known]]
    scored = scored & (known | ~cut)
    there = ~above[owner] | (level < judged_level[owner])
    split = pc.fill_null(labelled["split"], "none")
    bands = _bands(labelled)
    fitted = pc.fill_null(labelled["fitted"], False).to_numpy(zero_copy_only=False)
    sides = {name: pc.equal(split, name).to_numpy(zero_copy_only=False) for name in pc.unique(split).to_pylist()}
    sides[ALL] = np.ones(len(labelled), bool)
    if labelled["fitted"].null_count < len(labelled) and not fitted.all():
        sides[HELD_OUT] = ~fitted
    for name, chosen in sides.items():
        tally = into[name]
        tally.fitted += int((chosen & fitted).sum())
        tally.above += int((chosen & above).sum())
        for pair, count in enumerate(np.bincount(index[chosen], minlength=len(named)).tolist()):
            if count:
                tally.pairs[named[pair]] += count
        answered = chosen & (decided > 0)
        tally.answered += int(answered.sum())
        tally.held += int((answered & (judgeable <= shared)).sum())
        for reliability in (tally.trust[0], tally.fine):
            reliability.add(probability[chosen & scored], right[chosen & scored])
        deepest = int(lengths[chosen].max(initial=0))
        tally.trust += [Reliability() for _ in range(deepest + 1 - len(tally.trust))]
        for number, reliability in enumerate(tally.trust[1:]):
            rows = there & chosen[owner] & (level == number)
            reliability.add(values[rows], (shared[owner] > number)[rows])
        for column, (code, names) in bands.items():
            sizes = np.bincount(code[chosen], minlength=len(names))
            rights = np.bincount(code[chosen & right], minlength=len(names))
            _add(tally.slices[column], names, sizes, rights)


def _add(slices: dict[str, list[int]], names: list[str], sizes: Array, rights: Array) -> None:
    for name, size, hits in zip(names, sizes.tolist(), rights.tolist(), strict=True):
        if not size:
            continue
        known = name in slices or name == UNKNOWN or len(slices) < MAX_STORES
        counts = slices.setdefault(name if known else OTHER_STORES, [0, 0])
        counts[0] += size
        counts[1] += hits


def _bands(labelled: pa.RecordBatch) -> dict[str, tuple[Array, list[str]]]:
    """Return for each slicing column each product's band, as a number, and the bands' names."""
    stores = pc.fill_null(labelled["store"], UNKNOWN).dictionary_encode()
    codes = {"store": (stores.indices.to_numpy(), stores.dictionary.to_pylist())}
    unread = labelled["images_unread"].fill_null(-1).to_numpy(zero_copy_only=False)
    codes["images_unread"] = (np.minimum(unread, 1) + 1, list(READ))
    for column, edges in BANDS.items():
        values = labelled[column].cast(pa.float64()).fill_null(-1).to_numpy(zero_copy_only=False)
        code = np.digitize(np.nan_to_num(values, nan=-1.0), edges)  # 0: below all of them, or unknown
        codes[column] = (code, band_names(column))
    return codes


def band_names(column: str) -> list[str]:
    """Return the names of the bands of a column of numbers, in their order."""
    edges = BANDS[column]
    between = (f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges))
    return [UNKNOWN, *between, f"{edges[-1]:g} or more"]


def _named(pair: str) -> tuple[CategoryPath, CategoryPath | None]:
    true, _, guess = pair.partition(PAIR_SEPARATOR)
    return tuple(true.split(PATH_KEY_SEPARATOR)), tuple(guess.split(PATH_KEY_SEPARATOR)) if guess else None
