"""Taxonomies: the tree of category paths, its labels, its readers, and its compiled trie."""

from atlas_ray.taxonomy.changes import TaxonomyChanges, compare
from atlas_ray.taxonomy.labels import LabelSpace
from atlas_ray.taxonomy.mapping import read_mapping
from atlas_ray.taxonomy.match import match_labels, match_leaves
from atlas_ray.taxonomy.readers import read_taxonomy
from atlas_ray.taxonomy.tree import SEPARATOR, CategoryPath, Taxonomy, format_path, parse_path
from atlas_ray.taxonomy.trie import Trie, compile_trie
from atlas_ray.taxonomy.vocabulary import Vocabulary

__all__ = [
    "SEPARATOR",
    "CategoryPath",
    "LabelSpace",
    "Taxonomy",
    "TaxonomyChanges",
    "Trie",
    "Vocabulary",
    "compare",
    "compile_trie",
    "format_path",
    "match_labels",
    "match_leaves",
    "parse_path",
    "read_mapping",
    "read_taxonomy",
]
