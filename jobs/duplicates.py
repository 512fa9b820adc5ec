"""Entry point for `ray job submit ... -- python jobs/duplicates.py ...`: `atlas-ray duplicates` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["duplicates", *sys.argv[1:]]))
