"""What the commands end with."""

import sys

EXIT_OK, EXIT_FAILED, EXIT_USER, EXIT_QUARANTINE = 0, 1, 2, 3
"""All well; anything else; a mistake in what was given; finished with more in quarantine than allowed."""


def quarantine_exit(command: str, found: float, limit: float, *, what: str = "pictures") -> int:
    """Return how a command ends by the share that is in quarantine, and say so where it is too much."""
    if found <= limit:
        return EXIT_OK
    print(f"atlas-ray {command}: {found:.1%} of the {what} are in quarantine, over {limit:.1%}", file=sys.stderr)
    return EXIT_QUARANTINE
