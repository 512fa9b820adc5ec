"""For `ray job submit -- python jobs/evaluate_labels.py ...`: `atlas-ray evaluate-labels`, the same flags."""

import sys

from atlas_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate-labels", *sys.argv[1:]]))
