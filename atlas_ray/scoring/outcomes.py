"""The rows that scored, filtered and failed pictures leave, and which table each goes to.

Importing this imports no torch: the processes that write use it.
"""

import pyarrow as pa
import pyarrow.compute as pc

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
