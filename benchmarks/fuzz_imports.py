"""Damaged catalogues: whether an import balances in each, and how many of the undamaged rows come through.

    python -m benchmarks.fuzz_imports [--files 300] [--seed 0]

Each file is a drawn CSV or JSON Lines catalogue with one to three damages of one kind. A row that no damage touched has
to come through as it was; one that came from nowhere must not. A file whose header is damaged may be refused.
"""

import argparse
import time
from collections import Counter

from tests.support.damaged_tables import outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    table: dict[tuple[str, str], Counter[str]] = {}
    for outcome in outcomes(options.files, options.seed):
        row = table.setdefault((outcome.damage, outcome.kind), Counter())
        row.update(files=1, refused=bool(outcome.refused), failed=bool(outcome.failure))
        row.update(whole=outcome.whole, through=outcome.through)
        if outcome.failure:
            print(f"FAILED {outcome}")
    names = ("files", "refused", "failed", "whole", "through")
    print(f"{'damage':28} {'kind':6} {'files':>6} {'refused':>8} {'failed':>7} {'untouched rows':>15} {'through':>8}")
    for (what, kind), row in sorted(table.items()):
        cells = "{:6} {:8} {:7} {:15} {:8}".format(*(row[name] for name in names))
        print(f"{what:28} {kind:6} {cells}")
    total = sum(table.values(), Counter[str]())
    print(f"{'all':35} " + "{:6} {:8} {:7} {:15} {:8}".format(*(total[name] for name in names)))
    print(f"{time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
