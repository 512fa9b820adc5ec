"""Searches over a step function and a trie; they know no model."""

from atlas_ray.decoding.beam import beam_search
from atlas_ray.decoding.classes import classes_search
from atlas_ray.decoding.exact import exact_log_mass, exact_search
from atlas_ray.decoding.posterior import Posterior, spread
from atlas_ray.decoding.scope import Scope, leaf_classes
from atlas_ray.decoding.searches import EXACT_NODE_BUDGET, SEARCH_CHOICES, SEARCH_HELP, SEARCHES, Search, choose_search
from atlas_ray.decoding.step import StepFunction
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.decoding.unconstrained import Proposals, unconstrained_search

__all__ = [
    "EXACT_NODE_BUDGET",
    "SEARCHES",
    "SEARCH_CHOICES",
    "SEARCH_HELP",
    "Posterior",
    "Proposals",
    "Scope",
    "Search",
    "StepFunction",
    "TrieTensors",
    "beam_search",
    "choose_search",
    "classes_search",
    "exact_log_mass",
    "exact_search",
    "leaf_classes",
    "spread",
    "unconstrained_search",
]
