"""Kills a scoring run with SIGKILL at random moments, runs the same command again, and compares.

    python -m benchmarks.kill_resume [--kinds driver actor raylet] [--moments 5] [--count 1200]

`driver` is the command itself (its local Ray dies with it), `actor` a process that holds the model,
`raylet` the Ray of one of two nodes (a cluster made with `ray.cluster_utils`). Each run's tables
are compared with those of an uninterrupted run: ids, paths, error codes, and probabilities to 1e-4. The catalogue
numbers its pictures within each product.
"""

import argparse
import random
import tempfile
import time

from tests.support.kills import KINDS, Bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--moments", type=int, default=5)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-", ignore_cleanup_errors=True) as scratch:
        bench = Bench(scratch, options.count, options.backbone, 150)
        print(f"uninterrupted: {options.count} pictures, stream of {bench.stream_s:.1f} s", flush=True)
        for kind in options.kinds:
            for number in range(options.moments):
                line = bench.case(kind, random.random(), f"{kind}{number}")
                print(f"{kind} {number + 1}: {line}", flush=True)


if __name__ == "__main__":
    main()
