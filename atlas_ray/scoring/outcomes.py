"""The rows that scored, filtered and failed pictures leave, and which table each goes to.

Importing this imports no torch: the processes that write use it.
"""

import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.runtime.joined import NO_PICTURE
from atlas_ray.runtime.outcomes import ERROR, split_outcomes
from atlas_ray.schemas import FILTERED, PREDICTIONS

OUTCOMES = pa.unify_schemas([PREDICTIONS, ERROR])
"""A scored, filtered or failed picture: the columns of all three tables."""
FILTER_STAGE = "filter"


def split_scored(table: pa.Table) -> dict[str, pa.Table]:
    """Tell a block's predictions, filtered pictures and quarantine rows apart."""
    filtered = pc.equal(table["stage"], FILTER_STAGE).fill_null(False)
    tables = split_outcomes(table.filter(pc.invert(filtered)), "predictions", PREDICTIONS)
    return {**tables, "filtered": table.filter(filtered).select(FILTERED.names).cast(FILTERED)}


def is_spared(rows: pa.Table) -> pa.ChunkedArray:
    """Return which rows are of pictures that were not read, since the texts alone gave the answer."""
    unread = pc.and_(rows["sha256"].is_null(), rows["picture_error"].is_null())
    return pc.and_(unread, pc.not_equal(rows["image_uri"], NO_PICTURE))


def spared_pictures(outcomes: pa.Table) -> list[str]:
    """Return a sentence about the share of pictures that a run with a cascade would not read."""
    pictures = outcomes.filter(pc.not_equal(outcomes["image_uri"], NO_PICTURE))
    answered = pictures.filter(pictures["error_code"].is_null())
    spared = pc.sum(is_spared(answered)).as_py() or 0
    return [f"not read, answered by texts alone: {spared / max(len(pictures), 1):.1%} of the pictures"]
