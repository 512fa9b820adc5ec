"""Searches over a step function and a trie; they know no model."""

from atlas_ray.decoding.beam import beam_search
from atlas_ray.decoding.classes import classes_search
from atlas_ray.decoding.exact import exact_search
from atlas_ray.decoding.posterior import Posterior
from atlas_ray.decoding.step import StepFunction
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.decoding.unconstrained import Proposals, unconstrained_search

__all__ = [
    "Posterior",
    "Proposals",
    "StepFunction",
    "TrieTensors",
    "beam_search",
    "classes_search",
    "exact_search",
    "unconstrained_search",
]
