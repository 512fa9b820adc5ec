"""Modalities: a product's pictures and texts, as models take them."""

from collections.abc import Mapping, Sequence

PICTURE = "picture"
MODALITIES = (PICTURE, "title", "description")
"""The inputs of a model: a product's picture and its texts."""
Texts = Mapping[str, Sequence[str | None]]
"""The text of each product by field, `title` or `description`; None or "" if a product has none."""


def texts_of(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return those modalities that are texts: title, description."""
    return tuple(name for name in modalities if name != PICTURE)
