"""Pages in a real browser, watched for anything that goes wrong in them."""

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Page

SIZES = {"desk": (1280, 900), "phone": (375, 812)}
"""Width and height of the windows that each page has to fit."""


@contextlib.contextmanager
def watched_page(
    browser: Browser,
    size: tuple[int, int],
    *,
    sites: tuple[str, ...] = ("file:",),
    expected: str = "\n",
    **context: Any,
) -> Iterator[Page]:
    """Open a page, and check at the end that it fits its window and that nothing went wrong.

    Nothing means no error in its console, no dialog, and no request outside of `sites`.

    Args:
        browser: The browser.
        size: The window's width and height.
        sites: Beginnings of the addresses that the page may request, besides `data:` and `blob:`.
        expected: A part of the texts of errors that the tests provoke.
        context: More options of `Browser.new_context`.
    """
    opened = browser.new_context(viewport={"width": size[0], "height": size[1]}, **context)
    page = opened.new_page()
    wrong: list[str] = []
    page.on("request", lambda sent: None if sent.url.startswith((*sites, "data:", "blob:")) else wrong.append(sent.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert [text for text in wrong if expected not in text] == []
    opened.close()
