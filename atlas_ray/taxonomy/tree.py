"""The taxonomy: a versioned tree of category paths."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from atlas_ray.errors import TaxonomyError
from atlas_ray.formats.values import clean_name

CategoryPath = tuple[str, ...]
SEPARATOR = " > "


def format_path(path: Iterable[str]) -> str:
    """Write a category path as a person reads it: `Women > Ethnic Wear > Sarees`."""
    return SEPARATOR.join(path)


def parse_path(text: str) -> CategoryPath:
    """Read a category path written with `>` between its names; names are NFC, and white space in them is one space.

    Raises:
        TaxonomyError: if a name is empty.
    """
    path = tuple(map(clean_name, text.split(">")))
    check_path(path)
    return path


def check_path(path: CategoryPath) -> None:
    """Refuse a path with no names, an empty name, or a name that would not read back.

    Raises:
        TaxonomyError: naming the path and the name.
    """
    if not path:
        raise TaxonomyError("a category path without a name; expected 'Top > ... > Leaf'")
    for name in path:
        if not name or name != name.strip():
            raise TaxonomyError(f"empty or padded name {name!r} in the path {format_path(path)!r}")
        if ">" in name:
            raise TaxonomyError(f"the name {name!r} holds the separator '>'; write it without, or split the path")
        if any(ord(letter) < 32 for letter in name):
            raise TaxonomyError(f"the name {name!r} holds a control character")


class Taxonomy:
    """A tree of category paths; its leaves are what may be predicted.

    Attributes:
        name: What people call it.
        version: Its publisher's version, or "".
        nodes: The path of every node, each after its parent, otherwise in the order given.
        ids: The path of each of its publisher's ids; they are no part of the content id. Several ids may have
            one path: a translation may give two categories the same name.
    """

    def __init__(
        self,
        paths: Iterable[CategoryPath],
        *,
        name: str,
        version: str = "",
        ids: Mapping[str, CategoryPath] | None = None,
    ) -> None:
        """Build the tree; ancestors that are not listed are implied.

        Args:
            paths: Leaves alone, or every node, in any order.
            name: What people call it.
            version: Its publisher's version.
            ids: The path of each of its publisher's ids; of a part of the nodes, or of none.

        Raises:
            TaxonomyError: for a path listed twice, an id of a path that is not there, a bad name, or no path at all.
        """
        self.name = name
        self.version = version
        listed: set[CategoryPath] = set()
        nodes: dict[CategoryPath, None] = {}
        for path in paths:
            if path in listed:
                raise TaxonomyError(f"the path {format_path(path)!r} is listed twice")
            check_path(path)
            listed.add(path)
            for level in range(1, len(path) + 1):
                nodes.setdefault(path[:level])
        if not nodes:
            raise TaxonomyError(f"the taxonomy {name!r} holds no path")
        self.nodes: tuple[CategoryPath, ...] = tuple(nodes)
        self.ids: Mapping[str, CategoryPath] = dict(ids or {})
        for node_id, path in self.ids.items():
            if path not in nodes:
                raise TaxonomyError(
                    f"the id {node_id!r} is that of {format_path(path)!r}, which is not in the taxonomy"
                )

    @cached_property
    def ids_of(self) -> dict[CategoryPath, list[str]]:
        """The ids of every path that has one or more."""
        ids: dict[CategoryPath, list[str]] = {}
        for node_id, path in self.ids.items():
            ids.setdefault(path, []).append(node_id)
        return ids

    @cached_property
    def children(self) -> dict[CategoryPath, list[CategoryPath]]:
        """The child paths of every inner node, the root being `()`."""
        children: dict[CategoryPath, list[CategoryPath]] = {}
        for path in self.nodes:
            children.setdefault(path[:-1], []).append(path)
        return children

    @cached_property
    def leaves(self) -> tuple[CategoryPath, ...]:
        """The paths that may be predicted, in the order of `nodes`."""
        return tuple(path for path in self.nodes if path not in self.children)

    @cached_property
    def leaf_positions(self) -> dict[CategoryPath, int]:
        """The place of each leaf in `leaves`."""
        return {path: position for position, path in enumerate(self.leaves)}

    @cached_property
    def label_positions(self) -> dict[CategoryPath, int]:
        """The position of each node as a label: the leaves as in `leaf_positions`, then the nodes above them."""
        above = (path for path in self.nodes if path in self.children)
        return {path: position for position, path in enumerate((*self.leaves, *above))}

    @cached_property
    def leaf_set(self) -> frozenset[CategoryPath]:
        """The leaves, to ask whether a path is one."""
        return frozenset(self.leaves)

    @property
    def depth(self) -> int:
        """The deepest level."""
        return max(len(path) for path in self.leaves)

    @cached_property
    def id(self) -> str:
        """The content id: the same for the same set of paths, in any order and under any name."""
        text = "\n".join(sorted("\t".join(path) for path in self.nodes))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def count_by_level(self) -> list[int]:
        """Return how many nodes each level has, level 1 first."""
        counts = [0] * self.depth
        for path in self.nodes:
            counts[len(path) - 1] += 1
        return counts

    def within(self, prefix: CategoryPath) -> "Taxonomy":
        """Return the part of the tree at and below a node, its paths still from the root.

        Raises:
            TaxonomyError: if the taxonomy has no such node.
        """
        if prefix not in set(self.nodes):
            nearest = prefix[:-1]
            while nearest and nearest not in self.children:
                nearest = nearest[:-1]
            choices = ", ".join(repr(path[-1]) for path in self.children[nearest][:10])
            where = f"below {format_path(nearest)!r}" if nearest else "at the top"
            raise TaxonomyError(
                f"{format_path(prefix)!r} is not in the taxonomy {self.name!r}; {where} it has {choices}"
            )
        paths = [path for path in self.leaves if path[: len(prefix)] == prefix]
        ids = {node_id: path for node_id, path in self.ids.items() if path[: len(prefix)] == prefix[: len(path)]}
        return Taxonomy(paths, name=self.name, version=self.version, ids=ids)

    def to_json(self) -> str:
        """Write the taxonomy as the JSON text that `from_json` reads."""
        document: dict[str, object] = {
            "name": self.name,
            "version": self.version,
            "id": self.id,
            "paths": [list(path) for path in self.nodes],
        }
        if self.ids:  # a text where a path has one id, which is the rule
            document["ids"] = [
                ids[0] if len(ids) == 1 else ids or None for ids in (self.ids_of.get(path, []) for path in self.nodes)
            ]
        return json.dumps(document, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> "Taxonomy":
        """Read what `to_json` wrote.

        Raises:
            TaxonomyError: for other JSON, or if the content id does not match the paths.
        """
        try:
            document = json.loads(text)
            paths = [tuple(path) for path in document["paths"]]
            name, version, stated = document["name"], document["version"], document.get("id")
            listed = document.get("ids") or [None] * len(paths)
            owners = [
                (node_id, path)
                for path, ids in zip(paths, listed, strict=True)
                if ids is not None
                for node_id in (ids if isinstance(ids, list) else [ids])
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise TaxonomyError(f"{source}: not a taxonomy.json of this project ({error})") from error
        if not all(isinstance(part, str) for path in paths for part in path):
            raise TaxonomyError(f"{source}: a category path holds something else than text")
        if not (isinstance(name, str) and isinstance(version, str)):
            raise TaxonomyError(f"{source}: its name or its version is something else than text")
        ids: dict[str, CategoryPath] = {}
        for node_id, path in owners:
            if not isinstance(node_id, str):
                raise TaxonomyError(f"{source}: the id {node_id!r} is something else than text")
            if node_id in ids:
                raise TaxonomyError(
                    f"{source}: {format_path(ids[node_id])!r} and {format_path(path)!r} have the same id {node_id!r}"
                )
            ids[node_id] = path
        try:
            taxonomy = cls(paths, name=name, version=version, ids=ids)
        except TaxonomyError as error:
            raise TaxonomyError(f"{source}: {error}") from None
        if stated is not None and stated != taxonomy.id:
            raise TaxonomyError(
                f"{source}: its id is {stated!r} but its paths give {taxonomy.id!r}; the file was changed"
            )
        return taxonomy

    def lines(self) -> Iterator[str]:
        """Yield the tree drawn as text, one line a node, in the order of the tree."""
        stack: list[tuple[CategoryPath, str, bool]] = []

        def push(parent: CategoryPath, indent: str) -> None:
            children = self.children.get(parent, [])
            stack.extend(
                (child, indent, position == len(children) - 1)
                for position, child in reversed(list(enumerate(children)))
            )

        push((), "")
        while stack:
            path, indent, last = stack.pop()
            top = len(path) == 1
            yield path[-1] if top else f"{indent}{'└─ ' if last else '├─ '}{path[-1]}"
            push(path, "" if top else indent + ("   " if last else "│  "))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Taxonomy) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Taxonomy({self.name!r}, {len(self.leaves)} leaves, id {self.id})"
