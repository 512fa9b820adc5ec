"""Entry point for `ray job submit ... -- python jobs/crawl.py ...`: `atlas-ray crawl` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["crawl", *sys.argv[1:]]))
