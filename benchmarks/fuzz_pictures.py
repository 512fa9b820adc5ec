"""Damaged pictures of every format against Pillow's own judgement.

    python -m benchmarks.fuzz_pictures [--count 2000] [--seed 0]

Each picture is cut, gets a flipped byte, a zeroed run, bytes put in, or rubbish behind its end. What Pillow refuses
when it verifies the file, or decodes it whole, has to be refused here, with a `PictureError` and within a second.
Exits with 1 where one is not.
"""

import argparse
import sys
import warnings
from collections import Counter

from atlas_ray.modalities.picture_files import FORMATS
from tests.support.damaged_pictures import DAMAGES, damaged_pictures, faults, judge


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    verdicts: Counter[tuple[str, str, bool]] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    for kind, damage, data in damaged_pictures(options.count, options.seed):
        verdict = judge(data)
        slowest = max(slowest, verdict.seconds)
        verdicts[kind, damage, verdict.accepted] += 1
        wrong += [f"{kind}, {damage}: {fault}" for fault in faults(verdict, data)]
    print(f"{options.count} damaged pictures, seed {options.seed}: refused of all, by format and damage")
    for kind in FORMATS:
        cells = []
        for damage in DAMAGES:
            refused, accepted = verdicts[kind, damage, False], verdicts[kind, damage, True]
            cells.append(f"{damage} {refused}/{refused + accepted}")
        print(f"  {kind:5} {'  '.join(cells)}")
    print(f"slowest {slowest:.3f} s; wrong: {len(wrong)}")
    for line in wrong[:20]:
        print(f"  {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
