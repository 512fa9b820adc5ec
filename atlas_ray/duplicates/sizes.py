"""The sizes of fingerprints, for processes that compare them and never see a picture."""

from typing import Any

import numpy as np

GRID_PX = 32
SHAPE_BITS = 256
COLOUR_CELLS = 4
COLOUR_STEPS = (-15.0, -5.0, 5.0, 15.0)
BITS = SHAPE_BITS + 2 * COLOUR_CELLS**2 * len(COLOUR_STEPS)
WORDS = BITS // 64

Fingerprints = np.ndarray[Any, np.dtype[np.uint64]]
"""(pictures, WORDS) uint64."""
