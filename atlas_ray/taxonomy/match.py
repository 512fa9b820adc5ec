"""Checks of labels against the leaves that a model can answer with."""

from collections.abc import Iterable, Mapping

from atlas_ray.errors import TaxonomyError
from atlas_ray.taxonomy.tree import CategoryPath, Taxonomy, format_path

EXAMPLES = 3


def match_labels(
    labels: Mapping[CategoryPath, int], taxonomy: Taxonomy, *, labelled: str, predicted: str, leaves_only: bool = False
) -> str | None:
    """Hold the labels of products against a taxonomy.

    Args:
        labels: How many products have each.
        taxonomy: Its leaves are what can be answered.
        labelled: What has the labels, for messages.
        predicted: What has the taxonomy.
        leaves_only: Whether a label above the leaf is of no use, as for models of labels. Otherwise a leaf below it
            is right.

    Returns:
        How many labels and products no answer can be right for, with examples; None if there are none.

    Raises:
        TaxonomyError: if no label is even a node of the taxonomy; with examples of both.
    """
    known = taxonomy.leaf_positions if leaves_only else taxonomy.label_positions
    missing = {path: count for path, count in labels.items() if path not in known}
    if not missing:
        return None
    most = sorted(missing, key=lambda path: (-missing[path], path))
    if not taxonomy.label_positions.keys() & labels.keys():
        raise TaxonomyError(
            f"{predicted} is of another taxonomy ({taxonomy.name!r}, id {taxonomy.id}): none of the {len(labels)} "
            f"labels of {labelled} is in it; the labels are {_some(most)}, its leaves {_some(taxonomy.leaves)}"
        )
    what = "no leaves" if leaves_only else "no nodes"
    return (
        f"{len(missing)} of the {len(labels)} labels of {labelled}, which {sum(missing.values())} of "
        f"{sum(labels.values())} labelled products have, are {what} of the taxonomy of {predicted} "
        f"({taxonomy.name!r}, id {taxonomy.id}), so no answer can be right there; such as {_some(most)}"
    )


def match_leaves(leaves: Iterable[CategoryPath], taxonomy: Taxonomy, *, labelled: str, predicted: str) -> str | None:
    """Hold the leaves of a taxonomy that no product is labelled with yet against another one.

    Returns:
        How many of them cannot be answered, with examples; None if all can.
    """
    listed = list(leaves)
    missing = [path for path in listed if path not in taxonomy.leaf_set]
    if not missing:
        return None
    return (
        f"{len(missing)} of the {len(listed)} leaves of the taxonomy of {labelled} are none of {predicted} "
        f"({taxonomy.name!r}, id {taxonomy.id}), which never answers with them; such as {_some(missing)}"
    )


def _some(paths: Iterable[CategoryPath]) -> str:
    listed = list(paths)
    more = f" and {len(listed) - EXAMPLES} more" if len(listed) > EXAMPLES else ""
    return ", ".join(repr(format_path(path)) for path in listed[:EXAMPLES]) + more
