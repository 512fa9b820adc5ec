"""Rows of pictures in category folders."""

from collections.abc import Iterator, Sequence

from atlas_ray.catalog.parts import Origin, Part, RawRow
from atlas_ray.errors import CatalogError, RowError
from atlas_ray.formats.values import printable
from atlas_ray.io import storage

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")


def read_pictures(source: Origin, parts: Sequence[Part]) -> Iterator[RawRow]:  # noqa: ARG001 - as the others
    """Read pictures below a folder; the names of their folders are their category path."""
    empty = True
    ids = _FileIds()
    for number, (name, size) in enumerate(storage.walk(source.uri), 1):
        place = source.place(number, printable(name))
        if storage.ODD_SEGMENT.search(name):
            empty = False
            reason = "its name, or that of a folder, is empty, '.' or '..'; give the object another key"
            yield RawRow(place, error=RowError("bad_key", reason))
            continue
        if storage.is_hidden(name):
            continue
        empty = False
        if printable(name) != name:
            yield RawRow(place, error=RowError("bad_encoding", "its name is not UTF-8; rename it"))
        elif not name.lower().endswith(PICTURE_SUFFIXES):
            yield RawRow(place, error=RowError("not_a_picture", "its name has no picture's ending"))
        elif size == storage.DANGLING:
            yield RawRow(place, error=RowError("not_found", "a link that leads nowhere"))
        elif size == 0:
            yield RawRow(place, error=RowError("empty", "the file has no bytes"))
        else:
            product_id = ids.new(name)
            *folders, _ = name.split("/")
            uri = f"{source.uri}/{name}"  # whole, so that nothing in the name is taken for more than a name
            fields = {"product_id": product_id, "image_uris": [uri], "category_path": folders or None}
            yield RawRow(place, fields)
    if empty:
        raise CatalogError(f"{source.uri}: no file in it")


class _FileIds:
    """Ids of files that come sorted by name: the name without its ending; if another file has that, with it."""

    def __init__(self) -> None:
        self._beginnings: list[str] = []
        """The ids so far that the next file's name may begin with."""

    def new(self, name: str) -> str:
        """Return the id of the next file."""
        self._beginnings = [before for before in self._beginnings if name.startswith(f"{before}.")]
        stem = name.rpartition(".")[0]
        found = name if stem in self._beginnings else stem
        self._beginnings.append(found)
        return found
