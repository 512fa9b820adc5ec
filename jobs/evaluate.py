"""Entry point for `ray job submit ... -- python jobs/evaluate.py ...`: `atlas-ray evaluate` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
