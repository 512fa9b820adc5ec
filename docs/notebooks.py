"""Tutorials as Jupyter notebooks, written from their pages: blocks become cells, and what a block prints its output.

`docs/conf.py` calls `write` each time that the documentation is built; the notebooks are kept beside their pages.
"""

import json
import re
from pathlib import Path
from typing import Any

PAGES = ("tutorials/picture-and-text",)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\{doc\}`([^`]+)`")
ABOUT = "{download}"
"""The mark of a line of the page that is about the notebook, and is left out of it."""


def write(folder: Path) -> None:
    """Write the notebook of each page beside it."""
    for page in PAGES:
        text = json.dumps(notebook((folder / f"{page}.md").read_text(encoding="utf-8")), indent=1, ensure_ascii=False)
        (folder / f"{page}.ipynb").write_text(f"{text}\n", encoding="utf-8")


def notebook(page: str) -> dict[str, Any]:
    """Return a page as a notebook (format 4.4): text, Python, and commands behind a `!`."""
    cells: list[dict[str, Any]] = []
    prose, *blocks = BLOCK.split(page)
    for language, block, text in [("", "", prose), *zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True)]:
        if language == "text":
            cells[-1]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": _lines(block)}]
        elif language:
            code = re.sub("^(?=atlas-ray )", "!", block, flags=re.MULTILINE)
            cells.append(_cell("code", code) | {"execution_count": None, "outputs": []})
        lines = [LINK.sub(r"[\1](\1.md)", line) for line in text.splitlines() if ABOUT not in line]
        if any(lines):
            cells.append(_cell("markdown", "\n".join(lines)))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


def _cell(kind: str, text: str) -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {}, "source": _lines(text.strip("\n"))}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)
