"""Visibility of elements: the texts that readers see, and those that a page hides."""

import re
from collections.abc import Iterator

import lxml.etree
import lxml.html

HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
HIDDEN_CLASSES = frozenset(
    (
        "hidden", "hide", "is-hidden", "u-hidden", "d-none", "invisible", "element-invisible", "sr-only", "sronly",
        "visually-hidden", "visuallyhidden", "visuallyHidden", "is-visually-hidden", "u-visually-hidden",
        "cdk-visually-hidden", "screen-reader-text", "screen-reader", "screen-reader-only", "screenreader",
        "screenreader-only", "show-for-sr", "reader-only", "a11y-hidden", "a-offscreen", "offscreen", "off-screen",
        "assistive-text", "assistive", "accessibly-hidden", "accessibility-hidden", "visually-hidden-focusable",
        "sr-only-focusable", "hidden-text",
    )
)  # fmt: skip
"""What frameworks call elements that are not drawn, or are for screen readers alone."""
SHOWN_CLASS = re.compile(
    r"(?:sm|md|lg|xl|xxl|2xl)[:-](?:block|flex|grid|inline|inline-block|inline-flex|table|not-sr-only)$"
)
"""Such a class shows a hidden element again on wider screens."""
SCREEN_READER_CLASS = re.compile(r"(?:^|[-_])(?:sr-?only|visually-?hidden|screen-?reader)(?:$|[-_])", re.IGNORECASE)
UNSEEN_TAGS = frozenset(("script", "style", "noscript", "template", "svg"))
MAX_NODES = 10_000
"""Largest number of nodes of an element that are read for its text."""


def is_hidden(element: lxml.html.HtmlElement) -> bool:
    """Return whether an element by itself is not drawn for readers, whatever it stands in."""
    if element.get("hidden") is not None or HIDDEN_STYLE.search(element.get("style", "")[:300]):
        return True
    names = element.get("class", "")[:300].split()
    hidden = any(name in HIDDEN_CLASSES or SCREEN_READER_CLASS.search(name) for name in names)
    return hidden and not any(map(SHOWN_CLASS.search, names))


def seen_texts(element: lxml.html.HtmlElement) -> Iterator[tuple[str, lxml.html.HtmlElement]]:
    """Yield the texts below an element that readers see, each with the element that it stands in.

    Whether the element is hidden itself does not matter.
    """
    skipped: lxml.html.HtmlElement | None = None
    for number, (event, node) in enumerate(lxml.etree.iterwalk(element, events=("start", "end"))):
        if number > 2 * MAX_NODES:
            return
        if event == "start" and skipped is None:
            if node is not element and (node.tag in UNSEEN_TAGS or is_hidden(node)):
                skipped = node
            elif node.text and node.tag not in UNSEEN_TAGS:
                yield node.text, node
        elif event == "end":
            if node is skipped:
                skipped = None
            if skipped is None and node is not element and node.tail:
                yield node.tail, node.getparent()
