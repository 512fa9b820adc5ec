"""The page of a review queue, on which a person decides: pictures, paths to choose from, and a picker of all leaves.

A product is shown as HTML. Decisions about it, by `look/review.js`, are made on exact data beside that.
"""

import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from atlas_ray.metrics import common_prefix
from atlas_ray.reports.page import (
    MAX_BYTES,
    Share,
    document,
    json_text,
    paragraph,
    plain,
    section,
    shown,
    strip,
    summary,
    thumbnails,
)
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.taxonomy import CategoryPath, Taxonomy, format_path

if TYPE_CHECKING:
    from atlas_ray.reports.explainer import Explainer

SHOWN = 200
"""Largest number of products on the page, and again of products without any answer."""
SHOWN_OTHERS = 4
PICTURE_PX = 224
PICTURE_BYTES, STRIP_BYTES = 14_000, 45_000
MAX_LEAF_BYTES = 2_000_000
"""Of the leaves to choose from; a larger taxonomy is left out, and a path is typed."""
PAGE_BYTES = 60_000
"""Bytes reserved for the style, script and headings of the page."""
KEYS = (
    ("1 to 9", "that path is right: 2 says that the second one is"), ("o or /", "another path of the taxonomy"),
    ("u", "take the decision back"), ("j and k, or arrows", "next and previous product"), ("s", "save"),
)  # fmt: skip
TOOLS = """<div id="tools" hidden><span id="count"></span><progress id="done" max="{count}" value="0"></progress>
<button id="only" type="button" aria-pressed="false">Undecided only</button>
<button id="save" type="button">Save</button><p id="status" class="soft" role="status"></p></div>"""
NO_SCRIPT = "<noscript><p>Without scripts this page can be read only; fill in queue.csv instead.</p></noscript>"

Choice = int | list[str]
"""A leaf by its place among the leaves, or the path of a node whose leaves the picker then shows."""


def review_page(
    about: str, queue: pa.Table, taxonomy: Taxonomy | None, scored: ScoredRun | None, explainer: "Explainer | None"
) -> tuple[str, str]:
    """Draw the first products of a queue.

    Args:
        about: What the queue is of.
        queue: As `atlas_ray.reports.review.QUEUE` has it.
        taxonomy: The taxonomy whose leaves a person chooses from; without it, paths outside the queue are typed.
        scored: The run that the products are of, if any.
        explainer: Draws where the model looked, for as many products as the page has room for.

    Returns:
        The page, of under 5 MB, and a note about its attention strips.
    """
    listed = queue["note"].null_count < len(queue)
    ranked = queue if listed else queue.filter(queue["margin"].is_valid())
    rows = ranked.slice(0, SHOWN).to_pylist()
    silent = [] if listed else queue.filter(queue["margin"].is_null()).slice(0, SHOWN).to_pylist()
    leaves = _Leaves(taxonomy, [*rows, *silent])
    pictures = [*thumbnails([row["image_uri"] for row in rows], PICTURE_PX, whole=True), *["no answer"] * len(silent)]
    room = MAX_BYTES - PAGE_BYTES - leaves.size
    cards: list[str] = []
    products: list[dict[str, Any]] = []
    for row, picture in zip([*rows, *silent], pictures, strict=True):
        choices = leaves.choices(row)
        card = _card(row, choices, shown(picture, PICTURE_BYTES))
        product = {"id": row["product_id"], "choices": [choice for _, choice, _ in choices]}
        room -= len(card.encode()) + len(json_text(product).encode())
        if room < 0:
            break
        cards.append(card)
        products.append(product)
    note, drawn = "", 0
    if explainer is not None and not explainer.attends:
        note = f"the model {explainer.model_id} has no attention over the picture that could be shown"
    elif explainer is not None:
        for number, (row, attention) in enumerate(
            zip(rows[: len(cards)], explainer.strips(rows[: len(cards)]), strict=True)
        ):
            if isinstance(attention.drawing, str):
                continue
            looked = strip(attention.drawing, STRIP_BYTES)
            card = _card(row, leaves.choices(row), looked, explains=attention.explains)
            room -= len(card.encode()) - len(cards[number].encode())
            if room < 0:
                break
            cards[number], drawn = card, drawn + 1
        note = f"{drawn} of them show where the model {explainer.model_id} looked for each level"
        model = scored.identity.get("model_id") if scored else None
        notes = [] if model in (None, explainer.model_id) else [f"the run was scored by {model}"]
        note = "; ".join([note, *notes, *(f"the model {one}" for one in explainer.notes)])
    data = {
        "key": f"atlas-ray review {_digest(queue)}",
        "taxonomy": taxonomy.name if taxonomy else "",
        "free": leaves.free,
        "leaves": leaves.packed,
        "products": products,
    }
    doubtful = cards[: len(rows)]
    parts = [
        summary([*_words(queue, listed, len(cards)), *([f"{note[0].upper()}{note[1:]}."] if note else [])]),
        section("", _keys(), NO_SCRIPT),
        *doubtful,
    ]
    if len(cards) > len(rows):
        others = len(cards) - len(rows)
        text = f"{others} products; the run's quarantine says why."
        parts += [section("Without any answer", paragraph(text)), *cards[len(rows) :]]
    page = document(
        "Review", parts, about=about, files=("report", "review"), data=data, connect=True,
        bar=TOOLS.format(count=len(cards)),
    )  # fmt: skip
    return page, note


def _words(queue: pa.Table, listed: bool, count: int) -> list[str]:
    """Return sentences about the page, and about the use of its decisions."""
    total = len(queue)
    more = f", {count:,} of them on this page; the rest is in queue.csv" if count < total else ""
    order = " Smallest margin first: the best path's probability minus the second best one's."
    if queue["labels"].null_count < total:
        order = " Smallest margin first: the distance of the least sure label's probability from its threshold."
    order = "" if listed else order
    return [
        f"{total:,} products to decide on{more}.",
        f"Choose the right path of each; Save makes corrections.csv, which `atlas-ray relabel` takes.{order}",
    ]


def _keys() -> str:
    listed = "".join(f"<p><kbd>{key}</kbd> {html.escape(text)}</p>" for key, text in KEYS)
    return f"<details><summary>Keys</summary>{listed}</details>"


def _digest(queue: pa.Table) -> str:
    """Return a key that keeps this queue's decisions apart from those of another one in the same browser."""
    text = json.dumps(queue.select(["product_id", "category_path", "note"]).to_pylist())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Leaves:
    """The paths that a person may choose.

    Attributes:
        packed: Each as how many names it shares with the one before, and the others.
        free: Whether other paths may be typed, too.
        size: Bytes of the packed ones on the page.
    """

    def __init__(self, taxonomy: Taxonomy | None, rows: Sequence[dict[str, Any]]) -> None:
        seen = list(dict.fromkeys(path for row in rows for path, _ in _proposed(row)))
        self._inner = {path[:level] for path in seen for level in range(1, len(path))}
        listed = [path for path in seen if path not in self._inner]
        self.free = True
        if taxonomy is not None and len(json_text(_packed(taxonomy.leaves)).encode()) <= MAX_LEAF_BYTES:
            self._inner, listed, self.free = set(taxonomy.nodes) - taxonomy.leaf_set, list(taxonomy.leaves), False
        self._place = {path: place for place, path in enumerate(listed)}
        self.packed = _packed(listed)
        self.size = len(json_text(self.packed).encode())

    def choices(self, row: dict[str, Any]) -> list[tuple[CategoryPath, Choice, float | None]]:
        """Return at most nine proposals for a product: each path, its form on the page, and its probability."""
        choices: list[tuple[CategoryPath, Choice, float | None]] = []
        for path, probability in _proposed(row):
            if path in self._place:
                choices.append((path, self._place[path], probability))
            elif path in self._inner:
                choices.append((path, list(path), probability))
        return choices[:9]


def _packed(paths: Sequence[CategoryPath]) -> list[list[int | str]]:
    packed: list[list[int | str]] = []
    before: CategoryPath = ()
    for path in paths:
        shared = common_prefix(before, path)
        packed.append([shared, *path[shared:]])
        before = path
    return packed


def _proposed(row: dict[str, Any]) -> Iterator[tuple[CategoryPath, float | None]]:
    """Yield the answer, the other paths and the label of a product, each once."""
    answers = [(row["category_path"], row["probability"])]
    answers += [(one["category_path"], one["probability"]) for one in (row["alternatives"] or ())[:SHOWN_OTHERS]]
    answers.append((row["true_category_path"], None))
    seen = set()
    for names, probability in answers:
        path = tuple(names or ())
        if path and path not in seen:
            seen.add(path)
            yield path, probability


def _card(
    row: dict[str, Any],
    choices: Sequence[tuple[CategoryPath, Choice, float | None]],
    picture: str,
    *,
    explains: str = "",
) -> str:
    """Return a product's card.

    Args:
        row: Of the queue.
        choices: The paths that are proposed for it.
        picture: Its picture, or its pictures, as HTML.
        explains: Which other path the pictures explain.
    """
    answer = tuple(row["category_path"] or ())
    label = tuple(row["true_category_path"] or ())
    facts = [
        row["product_id"] if row["title"] else "",
        "" if row["margin"] is None else f"margin {row['margin']:.1%}",
        f"answered {format_path(answer)}" if answer and answer not in {path for path, _, _ in choices} else "",
        f"applied {', '.join(one['label'] for one in row['labels']) or 'no label'}"
        if row["labels"] is not None
        else "",
        "undecided" if not answer and row["labels"] is None and row["margin"] is not None else "",
        f"labelled {format_path(label)}" if label else "",
        row["note"] or "",
        explains,
    ]
    told = f'<p class="soft">{" · ".join(html.escape(plain(fact)) for fact in facts if fact)}</p>'
    buttons = "".join(
        _button(number, path, choice, probability, own=path == label)
        for number, (path, choice, probability) in enumerate(choices)
    )
    other = '<button class="other" type="button"><span>another path …</span></button>'
    name = html.escape(plain(row["title"] or row["product_id"]))
    return (
        f'<article class="card product" tabindex="-1" aria-label="{name}"><div class="shown">{picture}</div>'
        f'<div class="about"><h2>{name}</h2>{told}<div class="choices">{buttons}{other}</div></div></article>'
    )


def _button(number: int, path: CategoryPath, choice: Choice, probability: float | None, *, own: bool) -> str:
    written = format_path(path)
    below = "" if isinstance(choice, int) else "below "
    label = " (its label)" if own else ""
    share = f"{100 * probability:.1f}%" if probability is not None else "0%"
    sure = f"<b>{Share(probability)}</b>" if probability is not None else ""
    return (
        f'<button class="bar" type="button" data-choice="{number}" aria-pressed="false" style="--share: {share}">'
        f"<span><kbd>{number + 1}</kbd> {below}{html.escape(plain(written))}{label}</span>{sure}</button>"
    )
