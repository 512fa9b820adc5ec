"""Entry point for `ray job submit ... -- python jobs/tune.py ...`: `atlas-ray tune` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
