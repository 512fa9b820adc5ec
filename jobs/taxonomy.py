"""Entry point for `ray job submit ... -- python jobs/taxonomy.py migrate ...`: `atlas-ray taxonomy`, the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["taxonomy", *sys.argv[1:]]))
