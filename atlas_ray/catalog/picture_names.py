"""Readers of picture names in a source: cells with one name or several, and names as URIs."""

import ast
import io
import json
import os.path
import re
import tokenize
from typing import Any
from urllib.parse import unquote

from atlas_ray.errors import RowError
from atlas_ray.formats.values import describe, is_missing, plain_text, printable, valid_text
from atlas_ray.io import stores

URL_KEYS = ("url", "src", "href", "uri", "link", "image_url", "image", "path", "filename", "file", "name")
"""Keys under which objects hold the address of a picture, the preferred first."""
STORE = rf"(?:{'|'.join(stores.MODULES)})://"
"""A pattern of the beginning of an object's URI."""
ADDRESS = re.compile(rf"(?:https?:|{STORE[:-2]}|file:)?//[^/\s]|file:///", re.IGNORECASE)
BEFORE_ADDRESS = re.compile(rf"[\s|;,]+(?={ADDRESS.pattern})", re.IGNORECASE)
URI = re.compile(rf"{STORE}[^/]+/.|(?i:https?)://[^/?#]+(?:/[^#]|\?.)")
ENDING = r"\.(?:jpe?g|jpe|jfif|png|webp|gif|bmp|avif|tiff?|heic|heif|svg|jp2|jxl)"
PICTURE_END = re.compile(rf"{ENDING}(?:\?[^\s,;|]*)?$", re.IGNORECASE)
BETWEEN_ADDRESSES = re.compile(
    rf"(?<!/)({ENDING}(?:\?[^\s,;|]{{0,1000}}?)?)[^\w/=?&%.,;|\s]{{0,3}}(?=(?:https?|file)://|{STORE})",
    re.IGNORECASE,
)
"""A pattern of what separates two addresses: a picture's ending and signs that addresses do not contain."""
SEPARATOR = re.compile(r"(\s*[;,]\s*|\s+(?:&|\+|and|und|et)\s+|\s+)")
LINE_END = re.compile(r"[\r\n]+|<br\s*/?>", re.IGNORECASE)
IMG_TAG = re.compile(r"""<img\b[^<>]*?\ssrc\s*=\s*(["'])(.+?)\1""", re.IGNORECASE)
NAMED_ADDRESS = re.compile(r"[^/]*?\((https?://[^\s()]+)\)\s*(?:,|$)", re.IGNORECASE)
"""A pattern of an attachment as Airtable writes it: `a.jpg (https://host/1)`."""
SIZE = re.compile(r"\s*(\S*[^\s,])(?:\s+(\d+(?:\.\d+)?)[wx](?:\s*,\s*|\s*$)|\s*,\s+|\s*,?\s*$)")
"""A pattern of one size of a picture in HTML's `srcset`: `a.jpg 2x`."""
ONE_NAME = re.compile(rf"""(?:https?://|{STORE})?[^\s|;,:<"'\[{{]*""", re.IGNORECASE)
"""A pattern of cells that hold a single plain name, as most do."""
WINDOWS_PATH = re.compile(r"/?[A-Za-z]:[\\/]|\\\\")
PLAIN_LIST = re.compile(r'\{\s*(?:(?:"(?:[^"\\]|\\.)*"|[^\s",{}:][^",{}]*)\s*(?:,\s*(?!\})|(?=\})))*\}')
"""A pattern of a list as databases print it: `{a,"b, c",NULL}`."""
PLAIN_ENTRY = re.compile(r'"((?:[^"\\]|\\.)*)"|[^\s",{}][^",{}]*')
MISSING_NAMES = ("nan", "NaN", "null", "NULL", "NA")
NO_PYTHON = re.compile(rf"""['"]\s*['"]|\b(?:{"|".join(MISSING_NAMES)})\b|^\{{""")
"""A pattern of printed lists that Python cannot read back as they were; a set has no order."""
SHOWN = 120


def picture_names(value: Any, separator: str | None) -> list[str]:
    """Return the pictures that a value names, in their order.

    A text may name several: between lines, `|`, before each address (`https:`, `s3:`, `file:`, `//` ...), and at
    a comma, a semicolon, a space, `&` or `and` after a name with a picture's ending, if each name has one. An address
    is never cut within, and `my photo, front.jpg` is one name. Of one picture in several sizes (`a.jpg 1x, b.jpg 2x`)
    the largest is taken. Lists are read as they are, also nested ones, lists written as text, and lists of objects with
    an address.

    Args:
        value: From JSON, CSV or Arrow.
        separator: What alone separates the names in a text; None to tell it as above.

    Raises:
        RowError: `bad_image_uri` for a value that is neither.
    """
    if isinstance(value, str) and separator is not None:
        return [name.strip() for name in value.split(separator) if name.strip()]
    names: list[str] = []
    listed = read_listed(value) if isinstance(value, str) else value
    if isinstance(listed, str):
        return _split(listed)
    if isinstance(listed, list) and len(listed) == 1 and isinstance(listed[0], str):
        names = _split(listed[0])
        if len(names) > 1 or not stores.is_object(listed[0]):
            return names
        names = []  # the one key as it is
    pending = [listed]
    while pending:
        entry = pending.pop()
        if isinstance(entry, str):
            # The key of an object may end in a space; around any other name nobody means one.
            names += [entry if stores.is_object(entry) else entry.strip()] if entry.strip() else []
        elif isinstance(entry, list | tuple):
            pending.extend(reversed(entry))
        elif isinstance(entry, dict):
            addresses = [entry[key] for key in URL_KEYS if key in entry]
            address = next(filter(None, addresses), "" if addresses else None)
            if not isinstance(address, str):
                raise RowError("bad_image_uri", f"a picture is {describe(entry)} without any of {', '.join(URL_KEYS)}")
            pending.append(address)
        elif not is_missing(entry):
            raise RowError("bad_image_uri", f"a picture is {describe(entry)}; expected text or a list of it")
    return names


def read_listed(text: str) -> Any:
    """Return the list or object that a text is written as; else the text.

    It is so in JSON, as Python, NumPy or a database prints it: `["a"]`, `['a', nan]`, `['a' 'b']`, `{a,"b, c"}`.
    """
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return text
    for read in (json.loads, _as_python):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            continue
    if PLAIN_LIST.fullmatch(text):
        return [
            None if match[0] == "NULL" else match[0].strip() if match[1] is None else re.sub(r"\\(.)", r"\1", match[1])
            for match in PLAIN_ENTRY.finditer(text[1:-1])
        ]
    return text[1:-1].strip()


def _as_python(text: str) -> Any:
    """Read a list as Python prints it, also one of NumPy's, which has no commas, and with `nan` in it."""
    if not NO_PYTHON.search(text):
        return ast.literal_eval(text)
    parts: list[tuple[int, str]] = []
    for kind, word, *_ in tokenize.generate_tokens(io.StringIO(text).readline):
        if kind == tokenize.STRING and parts and parts[-1][0] == tokenize.STRING:
            parts.append((tokenize.OP, ","))
        if kind not in (tokenize.NL, tokenize.NEWLINE):
            parts.append((kind, "None" if word in MISSING_NAMES else word))
    value = ast.literal_eval(tokenize.untokenize(parts).strip())
    if isinstance(value, set):
        raise ValueError("a set has no order; a database prints lists so")
    return value


def _split(text: str) -> list[str]:
    if ONE_NAME.fullmatch(text):
        return [text] if text else []
    if text.lower().startswith("data:"):
        return [text]
    for read in (_quoted, _tagged, _largest):
        if names := read(text):
            return names
    text = BETWEEN_ADDRESSES.sub(r"\1\n", text)
    parts = [part for line in LINE_END.split(text) for part in BEFORE_ADDRESS.split(line)]
    names = [name for part in parts for name in ([part] if ADDRESS.match(part.lstrip()) else _names(part))]
    return [name for name in (name.strip().rstrip("|;, ") for name in names) if name]


def _quoted(text: str) -> list[str]:
    """Return the names of a text like `"a.jpg","b.jpg"`."""
    if text[0] != text[-1] or text[0] not in "'\"":
        return []
    found = read_listed(f"[{text}]")
    return [name.strip() for name in found if name.strip()] if isinstance(found, list) else []


def _tagged(text: str) -> list[str]:
    """Return the addresses of a text like `<img src="a.jpg">`, or `a.jpg (https://host/a)`."""
    if "<" in text:
        return [plain_text(name) for _, name in IMG_TAG.findall(text)]
    return [match[1] for match in _sequence(NAMED_ADDRESS, text)] if "(" in text else []


def _largest(text: str) -> list[str]:
    """Return the largest picture of a text like `a.jpg 1x, b.jpg 2x`, which are one in several sizes."""
    sizes = _sequence(SIZE, text)
    if any(size[2] for size in sizes) and all(ADDRESS.match(one[1]) or PICTURE_END.search(one[1]) for one in sizes):
        return [max(sizes, key=lambda size: float(size[2] or 1))[1]]
    return []


def _sequence(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Return the matches that a text consists of; [] if it holds anything else."""
    matches: list[re.Match[str]] = []
    at = 0
    while at < len(text) and (match := pattern.match(text, at)):
        matches.append(match)
        at = match.end()
    return matches if at == len(text) else []


def _names(text: str) -> list[str]:
    """Return the names of files in a line; the whole line if one of several would lack a picture's ending."""
    names = []
    for part in text.split("|"):
        ended: list[str] = []
        pieces: list[str] = []  # of the next name
        for piece in SEPARATOR.split(part):
            if pieces or not SEPARATOR.fullmatch(piece):
                pieces.append(piece)
            if PICTURE_END.search(piece) and re.match(r"[\w./\\~]", name := "".join(pieces)):
                ended.append(name)
                pieces = []
        names += [part] if "".join(pieces).strip(";, ") else ended
    return names


def picture_uri(name: str, base: str, *, rooted: bool = False) -> str:
    """Return the URI of a picture.

    Args:
        name: An address (`https://`, `http://`, `//HOST/...`, or an object's), a `file://` URI, or a path below `base`,
            also with backslashes.
        base: The folder, a local path or in an object store.
        rooted: Whether a path that begins with a slash is below `base`, too; below a web address it is.

    Raises:
        RowError: `bad_image_uri` for anything else, and for what leads out of `base`; `bad_encoding`.
    """
    valid_text(name, "picture")
    shown = repr(printable(name[:SHOWN]))
    if re.match("//[^/]", name):
        name = f"https:{name}"
    if URI.match(name):
        return name
    if re.match("(?i)data:|blob:", name):
        raise RowError("bad_image_uri", f"{shown} is a picture itself, not its name; save it as a file and name that")
    if local := re.match("(?i)file://(?:localhost)?(?=/)", name):
        name = valid_text(unquote(name[local.end() :], errors="surrogateescape"), "picture")
    if WINDOWS_PATH.match(name):
        raise RowError(
            "bad_image_uri",
            f"{shown} is a path of a Windows machine; name the folder that holds the pictures here with --image-base, "
            "and write names relative to it",
        )
    if "://" in name or "\0" in name or re.match("(?i)https?:", name):
        raise RowError("bad_image_uri", f"{shown}; expected {stores.EXPECTED}, or http(s)://HOST/PATH")
    if "/" not in name:
        name = name.replace("\\", "/")
    if not local and (is_address(base) or (rooted and not name.startswith(f"{base.rstrip('/')}/"))):
        name = name.removeprefix("/")  # Magento's `/m/b/mb01.jpg` is below the folder of its media
    return _below(name, base.rstrip("/"), shown)


def is_address(base: str) -> bool:
    """Tell whether pictures are below a web address."""
    return bool(re.match("(?i)https?://[^/?#]", base))


def _below(name: str, base: str, shown: str) -> str:
    if stores.is_object(base) or is_address(base):
        key = name.removeprefix("./")
        if stores.ODD_SEGMENT.search(key):  # as a path it would name another object than as a key
            raise RowError("bad_image_uri", f"{shown} leads out of {base}, or has a part that is empty, '.' or '..'")
        return f"{base}/{key}"
    path = os.path.normpath(os.path.join(base or "/", name))
    if os.path.commonpath([path, base or "/"]) != (base or "/"):
        raise RowError("bad_image_uri", f"{shown} leads out of {base}; name another folder with --image-base")
    return path
