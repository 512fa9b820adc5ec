"""Entry point for `ray job submit ... -- python jobs/compare.py ...`: `atlas-ray compare` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
