"""Entry point for `ray job submit ... -- python jobs/fetch.py ...`: `atlas-ray fetch` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["fetch", *sys.argv[1:]]))
