"""Entry point for `ray job submit ... -- python jobs/serve.py ...`: `atlas-ray serve --detach` with the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["serve", "--detach", *sys.argv[1:]]))
