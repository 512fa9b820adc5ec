"""Fonts that have the characters of a text: matplotlib's own, or one that the system has."""

import functools
import os.path
import subprocess
import unicodedata

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont, features

OWN = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
"""Latin, Greek, Cyrillic, Arabic, Hebrew and a few more."""
COMMON = (
    "NotoSansCJK-Regular.ttc", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf",
    "DroidSansFallbackFull.ttf", "wqy-microhei.ttc", "msyh.ttc", "meiryo.ttc", "malgun.ttf", "Nirmala.ttc",
    "Nirmala.ttf", "LeelawUI.ttf", "Arial Unicode.ttf", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc",
    "Devanagari Sangam MN.ttc", "Thonburi.ttc",
)  # fmt: skip
"""Common fonts of Linux, Windows and macOS, for machines whose fontconfig knows none."""
MATCH_TIMEOUT_S = 10.0


def own_font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return the font that is always there; it has all that is printable in ASCII, and `…`."""
    return ImageFont.truetype(OWN, size_px)


def font_of(text: str, size_px: int) -> ImageFont.FreeTypeFont | None:
    """Return a font that can write a text, or None if none is installed."""
    if any(map(_is_shaped, text)) and not features.check("raqm"):
        return None
    path = _path_of("".join(sorted(set(text))))
    return ImageFont.truetype(path, size_px) if path else None


def _is_shaped(letter: str) -> bool:
    """Return whether a letter is written from the right, or changes with those beside it, which takes a library."""
    return unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter).startswith("M")


@functools.lru_cache(maxsize=1024)
def _path_of(letters: str) -> str | None:
    if _letters(OWN).issuperset(letters):
        return OWN
    found = (path for path in (_matched(letters), *_common()) if path and _letters(path).issuperset(letters))
    return next(found, None)


@functools.lru_cache(maxsize=32)
def _letters(path: str) -> frozenset[str]:
    """Return the characters that a font's file has glyphs of; none if it cannot be used at any size."""
    try:
        ImageFont.truetype(path, 12)
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _matched(letters: str) -> str | None:
    """Return the file that fontconfig thinks best, which need not have all the letters."""
    charset = " ".join(f"{ord(letter):x}" for letter in letters)
    command = ["fc-match", "--format=%{file}", f"sans-serif:scalable=true:charset={charset}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MATCH_TIMEOUT_S, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout or None


@functools.cache
def _common() -> list[str]:
    paths = []
    for name in COMMON:
        try:
            paths.append(str(ImageFont.truetype(name, 12).path))  # searches the folders of the system
        except OSError:
            continue
    return paths
