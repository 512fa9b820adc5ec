"""Questions to a running endpoint: `python examples/ask_endpoint.py URL PICTURE...`.

The token, if the endpoint wants one, is in ATLAS_RAY_TOKEN. Neither PyTorch nor Ray is imported.
"""

import os
import sys

import atlas_ray as ar
from atlas_ray.errors import ItemError, ServiceError


def main(url: str, *pictures: str) -> int:
    """Print a line for each picture; return 1 if one of them was refused."""
    refused = 0
    try:
        with ar.Client(url, os.environ.get("ATLAS_RAY_TOKEN", "")) as client:
            for name, answer in zip(pictures, client.categorize(pictures, top_k=2), strict=True):
                if isinstance(answer, ItemError):
                    refused = 1
                    print(f"{name}\t{answer.code}: {answer.message}")
                else:
                    print(f"{name}\t{' > '.join(answer.category_path)}\t{answer.probability:.3f}")
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return refused


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} URL PICTURE...")
    sys.exit(main(*sys.argv[1:]))
