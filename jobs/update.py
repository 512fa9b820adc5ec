"""Entry point for `ray job submit ... -- python jobs/update.py ...`: `atlas-ray update` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["update", *sys.argv[1:]]))
