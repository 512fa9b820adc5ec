"""What pages show: languages, commands, flags and files that exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlas_ray.cli.main import command_parsers

ROOT = Path(__file__).parents[2]
WRITTEN = {
    f"docs/reference/{name}.md"
    for name in ("cli", "settings", "tables", "run-json", "errors", "http-api", "python-api")
}
"""Pages that are made from the code."""
PAGES = {
    name: path.read_text(encoding="utf-8")
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(ROOT.glob("docs/[a-z]*/*.md")),
        ROOT / "docs/index.md",
    ]
    if (name := str(path.relative_to(ROOT))) not in WRITTEN
}
BLOCK = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMMANDS = {name: parser for name, parser in command_parsers().items() if parser._subparsers is None}
FLAGS = {flag for parser in COMMANDS.values() for flag in parser._option_string_actions}
OTHER_FLAGS = {"--pages", "--count", "--pairs", "--img2dataset", "--version"}
"""Flags of programs that are no command of ours: benchmarks, Python."""


def shown_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of ours that a page shows, in a block or in a line, after `atlas-ray`."""
    for _, language, block in BLOCK.findall(text):
        if language not in ("bash", "console"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "atlas-ray" in words:
                yield words[words.index("atlas-ray") + 1 :]
    for line in re.findall(r"`atlas-ray ([a-z][^`\n]*)`", text):
        yield shlex.split(line)


def command_of(words: list[str]) -> str:
    """Return the name of the command that words call, "" where there is none."""
    return next((name for size in (2, 1) if (name := " ".join(words[:size])) in COMMANDS), "")


@pytest.mark.parametrize("page", PAGES)
def test_blocks_name_their_language(page: str) -> None:
    assert [body for _, language, body in BLOCK.findall(PAGES[page]) if not language] == []


@pytest.mark.parametrize("page", PAGES)
def test_shown_commands_and_their_flags_exist(page: str) -> None:
    for words in shown_commands(PAGES[page]):
        name = command_of(words)
        assert name or words[0].startswith("-"), words
        known = COMMANDS[name]._option_string_actions if name else {"--help": None, "--version": None}
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= known.keys(), f"{page}: {words}"


@pytest.mark.parametrize("page", PAGES)
def test_named_flags_exist(page: str) -> None:
    named = set(re.findall(r"`(--[a-z0-9-]+)[^`\n]*`", PAGES[page]))
    assert named <= FLAGS | OTHER_FLAGS


def test_every_command_has_a_guide() -> None:
    chapters = ("docs/guides/", "docs/getting-started/")
    shown = {
        command_of(words) for name, text in PAGES.items() if name.startswith(chapters) for words in shown_commands(text)
    }
    assert COMMANDS.keys() - shown == set()


def test_every_page_with_python_is_run() -> None:
    files = [ROOT / "tests/docs/test_walks.py", *(ROOT / "tests/extending").glob("test_*.py")]
    walks = "".join(file.read_text() for file in files)
    with_python = [name for name, text in PAGES.items() if "\n```python\n" in text]
    assert "README.md" in with_python
    walked = [f"../{name}".replace("../docs/", "").removesuffix(".md") for name in with_python]
    assert [page for page in walked if not re.search(rf'"{page}\.(md|ipynb)"', walks)] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_to_files_resolve(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", PAGES[page]) + re.findall(r'(?:src|href)="([^"#]+)"', PAGES[page])
    files = [link for link in links if "://" not in link]
    assert [file for file in files if not (ROOT / file).exists() and file not in WRITTEN] == []
