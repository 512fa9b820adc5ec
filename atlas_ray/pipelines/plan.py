"""The plans of the commands that stream over a catalogue's pictures."""

from collections.abc import Callable
from typing import Any

from atlas_ray.embedding import run as embedding
from atlas_ray.fetching import run as fetching
from atlas_ray.runtime.plan import Plan
from atlas_ray.runtime.settings import PlanConfig
from atlas_ray.scoring import run as scoring
from atlas_ray.zoom import filter as zoom

PLANS: dict[str, Callable[[Any, PlanConfig], Plan]] = {
    "score": scoring.plan,
    "embed": embedding.plan,
    "filter": zoom.plan,
    "fetch": fetching.plan,
}
"""By command: the function of its settings that tries its stages, and forecasts its run."""
