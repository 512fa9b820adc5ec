"""Entry point for `ray job submit ... -- python jobs/embed.py ...`: `atlas-ray embed` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["embed", *sys.argv[1:]]))
