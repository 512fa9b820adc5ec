"""`python -m atlas_ray COMMAND`: the same as `atlas-ray COMMAND`."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
