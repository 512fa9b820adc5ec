"""Entry point for `ray job submit ... -- python jobs/filter.py ...`: `atlas-ray filter` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["filter", *sys.argv[1:]]))
