"""Entry point for `ray job submit ... -- python jobs/train.py ...`: `atlas-ray train` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
