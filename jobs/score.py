"""Entry point for `ray job submit ... -- python jobs/score.py ...`: `atlas-ray score` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
