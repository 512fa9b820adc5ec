"""Entry point for `ray job submit ... -- python jobs/optimize.py ...`: `atlas-ray optimize` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["optimize", *sys.argv[1:]]))
