"""Changes between two versions of a taxonomy: what became of each path.

An old path and a new one are the same category if, in this order: a mapping says so; their ids are
the same (if both versions have ids of one publisher); the paths are the same; or their parents are
the same category and so are their names. Without ids two guesses follow, each of which is made only
if nothing else fits: a removed and an added path that have the same parent and the same children are
one that was renamed; a name that one removed leaf and one added leaf have is one that was moved, and so
it is with inner nodes of the same name and the same children. All else was removed, or was added.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from atlas_ray.errors import TaxonomyError
from atlas_ray.taxonomy.mapping import PathMapping
from atlas_ray.taxonomy.tree import CategoryPath, Taxonomy, format_path

KINDS = ("unchanged", "renamed", "moved", "merged", "split", "removed")
"""Kinds of changes of an old path."""
GUESSES = ("children", "name")
"""The sources of a change that are guesses."""
Matches = dict[CategoryPath, tuple[str, tuple[CategoryPath, ...]]]
"""New paths by old path, each with the source that tells of them."""


@dataclass(frozen=True)
class Change:
    """The change of one old path."""

    kind: str
    """renamed: another name under the same parent; moved: another parent; merged: others lead to the same new
    path; split: into several new ones."""
    old: CategoryPath
    new: tuple[CategoryPath, ...]
    """The new paths: one, several for a split path, none for a removed one."""
    source: str
    """How that is known: mapping, id, path, parent, children (a guess), name (a guess); "" of a removed one that
    nothing tells of."""
    follows: bool
    """Whether the path changed only because its parent did."""


@dataclass(frozen=True)
class Destination:
    """The place of the products of one old path in the new taxonomy."""

    path: CategoryPath | None
    """The new path; None if it is not certain."""
    reason: str = ""
    """Why `path` is None: removed, split, not_a_leaf (it has paths below it now), unknown (no old path). For an
    answer above its leaf also regrouped: no node on the way to the leaf's new path holds what the answer held. For a
    label above the leaf: some of what it held stands elsewhere."""
    candidates: tuple[CategoryPath, ...] = ()
    """The new paths at or below which the products belong, if `path` is None."""
    same_levels: bool = False
    """Whether each level of the new path holds what that of the old one held: no leaf came, and none left."""
    ancestors: tuple[int, ...] = ()
    """For each ancestor of the old path, top first: how many names of the new path are the node that holds what
    the ancestor held; 0 if none does."""


UNKNOWN = Destination(None, "unknown")


@dataclass(frozen=True)
class TaxonomyChanges:
    """The difference of two versions of a taxonomy."""

    old: Taxonomy
    new: Taxonomy
    changes: tuple[Change, ...]
    """The change of each node of the old taxonomy, in the taxonomy's order."""
    added: tuple[CategoryPath, ...]
    """The new paths that no old path became."""
    by_id: bool
    """Whether categories were matched by their ids."""
    unused: tuple[CategoryPath, ...] = ()
    """Old paths of the mapping that the old taxonomy does not have."""

    def count(self) -> dict[str, dict[str, int]]:
        """Return how many paths each kind has, and how many of them are leaves and follow their parents."""
        new_nodes = set(self.added)
        rows_of_kind = {
            kind: [(one.old in self.old.leaf_set, one.follows) for one in self.changes if one.kind == kind]
            for kind in KINDS
        }
        rows_of_kind["added"] = [(path in self.new.leaf_set, path[:-1] in new_nodes) for path in self.added]
        return {
            kind: {
                "paths": len(rows),
                "leaves": sum(leaf for leaf, _ in rows),
                "following": sum(follows for _, follows in rows),
            }
            for kind, rows in rows_of_kind.items()
        }

    @cached_property
    def stopped_leaves(self) -> tuple[tuple[CategoryPath, CategoryPath], ...]:
        """The old leaves, each with its new path, that have paths below them now."""
        return self._turned(self.old.leaf_set, self.new.leaf_set)

    @cached_property
    def began_leaves(self) -> tuple[tuple[CategoryPath, CategoryPath], ...]:
        """The old inner nodes, each with its new path, that are leaves now."""
        return self._turned(
            frozenset(self.old.nodes) - self.old.leaf_set, frozenset(self.new.nodes) - self.new.leaf_set
        )

    def _turned(
        self, before: Collection[CategoryPath], after: Collection[CategoryPath]
    ) -> tuple[tuple[CategoryPath, CategoryPath], ...]:
        """Return the old paths of `before` that became one new path outside `after`, with that path."""
        return tuple(
            (one.old, one.new[0])
            for one in self.changes
            if one.old in before and len(one.new) == 1 and one.new[0] not in after
        )

    @cached_property
    def destinations(self) -> Mapping[CategoryPath, Destination]:
        """The place of each old path's products in the new taxonomy."""
        same = _same_nodes(self.old, self.changes)
        images = {change.old: change.new[0] for change in self.changes if len(change.new) == 1}
        destinations: dict[CategoryPath, Destination] = {}
        for change in self.changes:
            if len(change.new) != 1:
                destinations[change.old] = Destination(None, change.kind, change.new)
                continue
            (path,) = change.new
            if change.old in self.old.leaf_set and path not in self.new.leaf_set:
                destinations[change.old] = Destination(None, "not_a_leaf", change.new)
                continue
            above = [change.old[:level] for level in range(1, len(change.old) + 1)]
            levels = len(path) == len(change.old) and all(path[: len(node)] in same.get(node, ()) for node in above)
            ancestors = tuple(_names_of(images.get(node), same.get(node, ()), path) for node in above[:-1])
            destinations[change.old] = Destination(path, same_levels=levels, ancestors=ancestors)
        return destinations

    @cached_property
    def label_destinations(self) -> Mapping[CategoryPath, Destination]:
        """As `destinations`, of products whose label the old path is: it may be above the leaf, before and after.

        So a leaf that has paths below it now stays a label. A node above the leaves stays one if no leaf below it
        became a path elsewhere; the reason is `regrouped` otherwise.
        """
        images = {change.old: change.new for change in self.changes}
        elsewhere: defaultdict[CategoryPath, dict[CategoryPath, None]] = defaultdict(dict)
        for leaf in self.old.leaves:
            for node in (leaf[:level] for level in range(1, len(leaf))):
                for target in images[leaf] if len(images[node]) == 1 else ():
                    if target[: len(images[node][0])] != images[node][0]:
                        elsewhere[node][target] = None
        destinations = dict(self.destinations)
        for old, new in images.items():
            if len(new) == 1:
                lost = elsewhere.get(old)
                destinations[old] = Destination(None, "regrouped", (*new, *lost)) if lost else Destination(new[0])
        return destinations

    def to_json(self) -> str:
        """Write all of it but the unchanged paths."""
        document: dict[str, Any] = {
            "old": _describe(self.old),
            "new": _describe(self.new),
            "by_id": self.by_id,
            "counts": self.count(),
            "changes": [
                {
                    "kind": change.kind,
                    "old_path": list(change.old),
                    "new_paths": [list(path) for path in change.new],
                    "leaf": change.old in self.old.leaf_set,
                    "source": change.source,
                    "follows": change.follows,
                }
                for change in self.changes
                if change.kind != "unchanged"
            ],
            "added": [list(path) for path in self.added],
            "stopped_being_leaves": _pairs(self.stopped_leaves),
            "began_being_leaves": _pairs(self.began_leaves),
            "unused_in_mapping": [list(path) for path in self.unused],
        }
        return json.dumps(document, ensure_ascii=False, indent=1)


def _pairs(turned: Iterable[tuple[CategoryPath, CategoryPath]]) -> list[dict[str, list[str]]]:
    return [{"old_path": list(old), "new_path": list(new)} for old, new in turned]


def _describe(taxonomy: Taxonomy) -> dict[str, Any]:
    return {
        "name": taxonomy.name,
        "version": taxonomy.version,
        "id": taxonomy.id,
        "nodes": len(taxonomy.nodes),
        "leaves": len(taxonomy.leaves),
    }


def compare(old: Taxonomy, new: Taxonomy, mapping: PathMapping | None = None) -> TaxonomyChanges:
    """Tell what became of each path of a taxonomy in its next version.

    Args:
        old: The version before.
        new: The version after.
        mapping: What is known of old paths; it wins over ids, names and guesses.

    Raises:
        TaxonomyError: if the mapping leads an old path to one that the new version does not have.
    """
    mapping = mapping or {}
    new_nodes, old_nodes = set(new.nodes), set(old.nodes)
    by_id = not old.ids.keys().isdisjoint(new.ids)

    def may_match(path: CategoryPath) -> bool:
        """Tell whether the new taxonomy has the path, and not as the category of another old one."""
        return path in new_nodes and not (by_id and any(node_id in old.ids for node_id in new.ids_of.get(path, ())))

    def of_same_id(path: CategoryPath) -> tuple[CategoryPath, ...]:
        """Return the new paths of an old path's ids: one, unless several categories had the old path."""
        same = (new.ids[node_id] for node_id in old.ids_of.get(path, ()) if node_id in new.ids)
        return tuple(dict.fromkeys(same))

    matches: Matches = {}
    for path in old.nodes:
        if path in mapping:
            for target in mapping[path]:
                if target not in new_nodes:
                    raise TaxonomyError(
                        f"the mapping leads {format_path(path)!r} to {format_path(target)!r}, which the taxonomy "
                        f"{new.name!r} does not have; correct the row, or leave its new path empty"
                    )
            matches[path] = "mapping", mapping[path]
        elif by_id and (same := of_same_id(path)):
            matches[path] = "id", same
        elif may_match(path):
            matches[path] = "path", (path,)
    _follow(old, matches, may_match)
    if not by_id:
        _guess(old, new, matches, may_match)
    reached = {target for _, targets in matches.values() for target in targets}
    return TaxonomyChanges(
        old=old,
        new=new,
        changes=_classified(old, matches),
        added=tuple(path for path in new.nodes if path not in reached),
        by_id=by_id,
        unused=tuple(path for path in mapping if path not in old_nodes),
    )


def _image(path: CategoryPath, matches: Matches) -> CategoryPath | None:
    """Return the one new path of an old one; of the root, the root."""
    if not path:
        return path
    _, targets = matches.get(path, ("", ()))
    return targets[0] if len(targets) == 1 else None


def _follow(old: Taxonomy, matches: Matches, may_match: Callable[[CategoryPath], bool]) -> None:
    """Match the paths that have the same name below what their parent became; parents come first in `nodes`."""
    guessed = {target for source, targets in matches.values() if source in GUESSES for target in targets}
    for path in old.nodes:
        if path not in matches and (parent := _image(path[:-1], matches)) is not None:
            target = (*parent, path[-1])
            if may_match(target) and target not in guessed:
                matches[path] = "parent", (target,)


def _guess(old: Taxonomy, new: Taxonomy, matches: Matches, may_match: Callable[[CategoryPath], bool]) -> None:
    """Match remaining paths if exactly one removed and one added path are alike; a match may settle others."""
    old_below, new_below = (
        {path: frozenset(child[-1] for child in taxonomy.children.get(path, ())) for path in taxonomy.nodes}
        for taxonomy in (old, new)
    )
    while True:
        before = len(matches)
        reached = {target for _, targets in matches.values() for target in targets}
        removed = [path for path in old.nodes if path not in matches]
        added = [path for path in new.nodes if path not in reached]
        _pair(
            matches,
            "children",
            (((_image(path[:-1], matches), old_below[path]), path) for path in removed if old_below[path]),
            (((path[:-1], new_below[path]), path) for path in added),
        )
        if len(matches) == before:  # what was renamed is settled before anything else is
            _pair(
                matches,
                "name",
                (((path[-1], old_below[path]), path) for path in removed),
                (((path[-1], new_below[path]), path) for path in added),
            )
        if len(matches) == before:
            return
        _follow(old, matches, may_match)


def _pair(
    matches: Matches,
    source: str,
    removed: Iterable[tuple[object, CategoryPath]],
    added: Iterable[tuple[object, CategoryPath]],
) -> None:
    """Match the removed and the added paths whose key no other path has; each comes as (key, path)."""
    sides: dict[object, tuple[list[CategoryPath], list[CategoryPath]]] = defaultdict(lambda: ([], []))
    for key, path in removed:
        sides[key][0].append(path)
    for key, path in added:
        sides[key][1].append(path)
    for before, after in sides.values():
        if len(before) == len(after) == 1:
            matches[before[0]] = source, (after[0],)


def _classified(old: Taxonomy, matches: Matches) -> tuple[Change, ...]:
    """Name what became of each old path."""
    leading = Counter(target for _, targets in matches.values() for target in targets)
    kinds: dict[CategoryPath, str] = {}
    changes = []
    for path in old.nodes:
        source, targets = matches.get(path, ("", ()))
        parent = path[:-1]
        follows = False
        if len(targets) != 1:
            kind = "split" if targets else "removed"
            follows = not targets and kinds.get(parent) == "removed"
        else:
            (target,) = targets
            beside = target[:-1] == _image(parent, matches)
            follows = beside and target != path and target[-1] == path[-1]
            if target == path:
                kind = "unchanged"
            elif leading[target] > 1:
                kind = "merged"
            elif follows and kinds[parent] == "renamed":
                kind = "renamed"
            else:
                kind = "renamed" if beside and not follows else "moved"
        kinds[path] = kind
        changes.append(Change(kind, path, targets, source, follows))
    return tuple(changes)


def _names_of(image: CategoryPath | None, same: Collection[CategoryPath], path: CategoryPath) -> int:
    """Return how many names of a path are the node above it that is the same as an old one, 0 for none.

    Several are where they have a single child each: then what the old node became counts, or else the deepest.
    """
    above = [node for node in same if node == path[: len(node)] != path]
    return len(image) if image in above else max(map(len, above), default=0)


def _same_nodes(old: Taxonomy, changes: Iterable[Change]) -> Mapping[CategoryPath, Collection[CategoryPath]]:
    """Return for old nodes the new ones below which all of their leaves lead, and no other leaf does."""
    left, reached = Counter[CategoryPath](), Counter[CategoryPath]()
    pairs = Counter[tuple[CategoryPath, CategoryPath]]()
    for change in changes:
        if change.old in old.leaf_set:
            below = [{target[:level] for level in range(1, len(target) + 1)} for target in change.new]
            reached.update(set().union(*below))
            for level in range(1, len(change.old) + 1):
                left[change.old[:level]] += 1
                pairs.update((change.old[:level], node) for node in (set.intersection(*below) if below else ()))
    same: defaultdict[CategoryPath, list[CategoryPath]] = defaultdict(list)
    for (before, after), count in pairs.items():
        if count == left[before] == reached[after]:
            same[before].append(after)
    return same
