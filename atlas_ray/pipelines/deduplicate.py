"""Duplicates found, and the products that share pictures put on one side of the split."""

from dataclasses import dataclass

from atlas_ray.catalog.split import SplitRule, resplit_catalog
from atlas_ray.duplicates.run import DuplicatesRunConfig, detect_duplicates
from atlas_ray.formats.tables import current
from atlas_ray.io import storage
from atlas_ray.io.lease import hold
from atlas_ray.runs.run_record import RunReport


@dataclass(frozen=True)
class Deduplicated:
    """What was found, and what it changed.

    Attributes:
        report: That of the run; the new catalogue is in `catalog` below its output.
        straddling: Groups of products that stood on several sides of the split.
        changed: Products that changed sides.
    """

    report: RunReport
    straddling: int
    changed: int


def deduplicate(config: DuplicatesRunConfig) -> Deduplicated:
    """Find the pictures that several products have, and write the catalogue with those products on one side."""
    source = current(storage.absolute(config.catalog))
    rule = SplitRule.of(source).changed(shares=config.split, seed=config.seed)
    output = storage.absolute(config.output)
    with hold(output, "duplicates"):
        found, report = detect_duplicates(config)
        straddling, changed = resplit_catalog(
            source, storage.join(output, "catalog"), found.groups, rule, anew=config.anew
        )
    return Deduplicated(report, straddling, changed)
