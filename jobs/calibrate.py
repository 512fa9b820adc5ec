"""Entry point for `ray job submit ... -- python jobs/calibrate.py ...`: `atlas-ray calibrate` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["calibrate", *sys.argv[1:]]))
