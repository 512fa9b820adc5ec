"""Readers of taxonomy files: CSV, this project's JSON, the Atlas JSON, Google's and Shopify's text.

A reader yields (line, path, id), the id "" if the file has none; `read_taxonomy` turns what is wrong
into an error that names the file, the line and the reason.
"""

import importlib.resources
import json
import re
from collections.abc import Callable, Iterator

from atlas_ray.errors import RowError, TaxonomyError
from atlas_ray.formats.delimited import Delimited, column_key
from atlas_ray.formats.text_files import Utf8Stream, decode, split_lines
from atlas_ray.formats.values import clean_name, name_value, plain_text
from atlas_ray.io import storage
from atlas_ray.taxonomy.tree import CategoryPath, Taxonomy, check_path, format_path, parse_path

Lines = Iterator[tuple[int, CategoryPath, str]]
BUILT_IN = {"atlas-52": "atlas-52.csv"}
GOOGLE_HEADER = re.compile(r"#\s*Google_Product_Taxonomy_Version:\s*(\S+)")
SHOPIFY_HEADER = re.compile(r"#\s*Shopify Product Taxonomy - Categories:\s*(\S+)")
PATHS = ("category_path", "path", "category", "full_path")
"""The columns that a path may stand in; the first counts before all others of a CSV, the rest if nothing else does."""
COLUMNS = ("level_1", "level_2", *PATHS, "id", "parent_id", "name", *(f"level_{n}" for n in range(3, 33)))
"""Accepted column names of a CSV of levels, of paths, or of nodes."""
NO_PARENT = ("", "0", "null", "NULL", "None")
"""Values that mean that a category has no parent, unless they are ids themselves."""
LEVEL = re.compile(r"level(\d{1,3})")
COMMENT = re.compile(r"#\s[^>]*|#")
MAX_BYTES = 256 * 1024 * 1024
PATH_SEPARATOR = re.compile(r"\s>\s|(?<=[\w)])>(?=\w)")
"""A pattern of the separator in `A > B` and `A>B`, but not in an arrow or a tag."""
OTHER_SEPARATORS = ("->", "»", "›", "|", ";", "\t", "/", "\\", ",")
"""Other separators that people write between the names of a path, for messages."""
OTHER_KINDS = {
    re.compile(r"<[!?a-zA-Z]"): "HTML or XML",
    re.compile(r"#!"): "a script",
    re.compile(r"%PDF-"): "a PDF",
    re.compile(r"(diff |--- |\+\+\+ |Index: )"): "a patch",
}
"""Kinds of texts that are no taxonomy, by their beginning, for messages."""
EXPECTED_TEXT = (
    "expected a path a line, 'Top > ... > Leaf', or a CSV with the columns level_1, level_2, ...; "
    "a tree of one level is a CSV with the column level_1"
)


def read_taxonomy(source: str, *, name: str | None = None) -> Taxonomy:
    """Read a taxonomy from a file, or one that ships with the package by its name (`atlas-52`).

    The kind is told from the content: this project's `taxonomy.json`, an Atlas catalogue JSON, a
    CSV (columns `level_1, level_2, ...`, or one of `PATHS`, or `id, parent_id, name`), Google's
    and Shopify's published text files, or plain text with a path a line. Of a plain text most lines have
    a `>`, or it is taken for something else and refused; a tree of one level is a CSV.

    Raises:
        TaxonomyError: with the file, the line and the reason.
        StorageError: if the file cannot be read.
    """
    if source in BUILT_IN:
        packaged = importlib.resources.files("atlas_ray.taxonomy") / "data" / BUILT_IN[source]
        return _build(source, "", _read_csv(packaged.read_text("utf-8"), source), source)
    data = storage.read_bytes(source)
    title = name or source.rstrip("/").rpartition("/")[2].rpartition(".")[0] or source
    text = decode_text(data, source)
    if text[:1] in ("{", "["):
        return _read_json(text, source, title)
    head = split_lines(text[:1000])[0] if text else ""
    if match := GOOGLE_HEADER.match(head):
        return _build(title, match[1], _read_text(text, _google_path), source)
    if match := SHOPIFY_HEADER.match(head):
        return _build(title, match[1], _read_text(text, _shopify_path), source)
    if source.lower().endswith((".csv", ".tsv")):
        return _build(title, "", _read_csv(text, source), source)
    for parse, pattern in UNNAMED.items():
        if _has_ids(text, pattern):
            return _build(title, "", _read_text(text, parse), source)
    text = plain_text(text)
    _check_paths(text, source)
    return _build(title, "", _read_text(text, lambda line: (parse_path(line), ""), comments_anywhere=True), source)


def _check_paths(text: str, source: str) -> None:
    """Refuse a text that is no list of category paths: any text at all could be read as a tree of one level.

    Raises:
        TaxonomyError: saying what the text looks like.
    """
    lines = [line.strip() for line in split_lines(text)]
    lines = [line for line in lines if line and not COMMENT.fullmatch(line)]
    if not lines:
        return
    if kind := next((kind for pattern, kind in OTHER_KINDS.items() if pattern.match(text.lstrip())), ""):
        raise TaxonomyError(f"{source}: looks like {kind}, not like a taxonomy; {EXPECTED_TEXT}")
    paths = [line for line in lines if PATH_SEPARATOR.search(line)]
    tops = {line.partition(">")[0].strip() for line in paths}
    if 2 * sum(line in tops or PATH_SEPARATOR.search(line) is not None for line in lines) >= len(lines):
        return
    if other := _other_separator(lines):
        reason = f"its names seem to stand between {other!r}, where '>' is expected"
    elif paths:
        reason = f"only {len(paths)} of its {len(lines)} lines read as 'Top > ... > Leaf'"
    else:
        reason = f"none of its {len(lines)} lines has a '>'; the first is {lines[0][:60]!r}"
    raise TaxonomyError(f"{source}: looks like no taxonomy: {reason}; {EXPECTED_TEXT}")


def decode_text(data: bytes, source: str) -> str:
    """Return the text of a file of paths.

    Raises:
        TaxonomyError: if it is too large, or no text.
    """
    if len(data) > MAX_BYTES:
        raise TaxonomyError(f"{source}: {len(data)} bytes; a file of category paths has at most {MAX_BYTES}")
    text = decode(data, source, TaxonomyError)
    if "\0" in text:
        raise TaxonomyError(f"{source}: a binary file; expected a CSV, JSON or text file")
    return text


def _build(name: str, version: str, lines: Lines, source: str) -> Taxonomy:
    """Collect the paths, so that a duplicate names both of its lines; with an id of its own it is another category."""
    seen: dict[CategoryPath, int] = {}
    ids: dict[str, CategoryPath] = {}
    id_lines: dict[str, int] = {}
    line = 0
    while True:
        try:
            line, path, node_id = next(lines)
            check_path(path)
        except StopIteration:
            break
        except _LineError as error:
            raise TaxonomyError(f"{source}, line {error.line}: {error.reason}") from None
        except TaxonomyError as error:
            raise TaxonomyError(f"{source}, line {line}: {error}") from None
        if node_id:
            if (first := id_lines.setdefault(node_id, line)) != line:
                raise TaxonomyError(f"{source}, line {line}: the id {node_id!r} stands already in line {first}")
            ids[node_id] = path
        elif path in seen:
            raise TaxonomyError(f"{source}, line {line}: {format_path(path)!r} stands already in line {seen[path]}")
        seen.setdefault(path, line)
    if not seen:
        raise TaxonomyError(f"{source}: no category path in it")
    return Taxonomy(seen, name=name, version=version, ids=ids)


class _LineError(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason


def _is_comment(line: str, tops: set[str]) -> bool:
    """Tell whether a line of a plain text is somebody's note: `# ...` without a path, and above no path."""
    return COMMENT.fullmatch(line.strip()) is not None and line.strip() not in tops


def _google_path(line: str) -> tuple[CategoryPath, str]:
    """Read `3237 - Animals & Pet Supplies > Live Animals`, or the same without its id."""
    match = re.match(r"(\d+) - ", line)
    return parse_path(plain_text(line[match.end() :] if match else line)), match[1] if match else ""


def _shopify_path(line: str) -> tuple[CategoryPath, str]:
    """Read `gid://shopify/TaxonomyCategory/ap-1 : Animals & Pet Supplies > Live Animals`."""
    gid, separator, path = line.partition(" : ")
    if not separator or not gid.startswith("gid://"):
        raise TaxonomyError(f"expected 'gid://... : A > B', found {line[:80]!r}")
    return parse_path(plain_text(path)), gid.strip()


UNNAMED: dict[Callable[[str], tuple[CategoryPath, str]], re.Pattern[str]] = {
    _google_path: re.compile(r"(\d+) - \S"),
    _shopify_path: re.compile(r"(gid://\S+) *: \S"),
}
"""Patterns of the lines of a publisher's file, by their parser, in case its first line, which names it, is cut off."""


def _has_ids(text: str, pattern: re.Pattern[str]) -> bool:
    """Tell whether each line begins with an id of its own, which then is no part of a name."""
    lines = [line for line in split_lines(text) if line.strip() and not line.startswith("#")]
    found = [match[1] for line in lines if (match := pattern.match(line))]
    return 0 < len(found) == len(lines) and (len(set(found)) == len(found) or not all(">" in line for line in lines))


def _read_text(
    text: str, parse: Callable[[str], tuple[CategoryPath, str]], *, comments_anywhere: bool = False
) -> Lines:
    """Read a path a line. Publishers' comments stand above the first one; `#1 Dad Mugs > Black` is a path."""
    lines = split_lines(text)
    tops = {line.partition(">")[0].strip() for line in lines if comments_anywhere and ">" in line}
    above = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if line.startswith("#") if above and not comments_anywhere else _is_comment(line, tops):
            continue
        above = False
        try:
            path, node_id = parse(line)
        except TaxonomyError as error:
            raise _LineError(number, str(error)) from None
        yield number, path, node_id


def _read_csv(text: str, source: str) -> Lines:
    """Read a CSV of levels, of paths or of nodes.

    Raises:
        TaxonomyError: at once, if its columns are none of these.
    """
    table = Delimited(Utf8Stream([text.encode()], "utf-8"), COLUMNS, source=source, error=TaxonomyError)
    columns = list(map(column_key, table.header))
    numbers = {int(found[1]): index for index, column in enumerate(columns) if (found := LEVEL.fullmatch(column))}
    levels = [numbers[number] for number in sorted(numbers)]
    id_at = columns.index("id") if "id" in columns else None
    if levels:
        take = _level_columns(levels)
    elif column_key(PATHS[0]) not in columns and {"id", "parentid", "name"} <= set(columns):
        return _adjacency(table, columns.index("id"), columns.index("parentid"), columns.index("name"))
    elif named := [key for key in map(column_key, PATHS) if key in columns]:
        return _path_column(table, columns.index(named[0]), id_at, source)
    else:
        raise TaxonomyError(
            f"{source}, line {table.header_lines}: the columns are {table.header[:8]}; expected level_1, level_2, ... "
            "or category_path or id, parent_id, name"
        )
    return _paths(table, take, id_at)


def _path_column(table: Delimited, at: int, id_at: int | None, source: str) -> Lines:
    """Read paths of one column; what another separator stands between would be a tree of one level, and is refused."""
    rows = [(line, cells[at], _id(cells, id_at)) for line, cells in _cells(table)]
    written = [path for _, path, _ in rows]
    if written and not any(">" in path for path in written) and (mark := _other_separator(written)) not in ("", ","):
        raise TaxonomyError(
            f"{source}: the names of its paths seem to stand between {mark!r}, where '>' is expected; write "
            "'Top > ... > Leaf', or a column for each level: level_1, level_2, ..."
        )
    for line, path, node_id in rows:
        try:
            yield line, parse_path(plain_text(path)), node_id
        except TaxonomyError as error:
            raise _LineError(line, str(error)) from None


def _other_separator(paths: list[str]) -> str:
    """Return what stands within most of some texts and may separate names, or ""."""
    return next((m for m in OTHER_SEPARATORS if sum(m in path[1:-1] for path in paths) >= 0.8 * len(paths)), "")


def _paths(table: Delimited, take: Callable[[list[str]], CategoryPath], id_at: int | None) -> Lines:
    for line, cells in _cells(table):
        try:
            yield line, take(cells), _id(cells, id_at)
        except TaxonomyError as error:
            raise _LineError(line, str(error)) from None


def _id(cells: list[str], at: int | None) -> str:
    return "" if at is None else cells[at].strip()


def _cells(table: Delimited) -> Iterator[tuple[int, list[str]]]:
    for line, _, cells, error in table:
        if error:
            raise _LineError(line, error.message)
        if cells:
            yield line, cells


def _level_columns(levels: list[int]) -> Callable[[list[str]], CategoryPath]:
    above: CategoryPath = ()

    def take(cells: list[str]) -> CategoryPath:
        nonlocal above
        names = [clean_name(plain_text(cells[index])) for index in levels]
        while names and not names[-1]:  # a path may end above the deepest level
            names.pop()
        # Spreadsheets leave out names that stand in the row above.
        missing = next((level for level, name in enumerate(names) if name), 0)
        if missing > len(above):
            raise TaxonomyError(f"level {len(above) + 1} is empty here and in the row above")
        path = above = (*above[:missing], *names[missing:])
        check_path(path)
        return path

    return take


def _adjacency(table: Delimited, id_at: int, parent_at: int, name_at: int) -> Lines:
    nodes: dict[str, tuple[int, str, str]] = {}
    for line, cells in _cells(table):
        node = cells[id_at].strip()
        if node in nodes:
            raise _LineError(line, f"the id {node!r} stands already in line {nodes[node][0]}")
        nodes[node] = (line, cells[parent_at].strip(), clean_name(plain_text(cells[name_at])))
    paths: dict[str, CategoryPath] = {root: () for root in NO_PARENT if root not in nodes}
    for node, (line, _, _) in nodes.items():
        chain: list[str] = []
        at = node
        while at not in paths:
            if at not in nodes:
                raise _LineError(nodes[chain[-1]][0], f"the parent_id {at!r} is the id of no row")
            if at in chain:
                raise _LineError(line, f"a cycle: {' -> '.join([*chain[chain.index(at) :], at])}")
            chain.append(at)
            at = nodes[at][1]
        for below in reversed(chain):
            paths[below] = (*paths[nodes[below][1]], nodes[below][2])
        yield line, paths[node], node


def _read_json(data: str, source: str, title: str) -> Taxonomy:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise TaxonomyError(f"{source}: not JSON: {error}") from None
    if isinstance(document, dict) and "paths" in document:
        return Taxonomy.from_json(data, source=source)
    if isinstance(document, dict) and "images" in document:
        return _build(title, "", _atlas_paths(document["images"]), source)
    found = sorted(document)[:8] if isinstance(document, dict) else type(document).__name__
    raise TaxonomyError(
        f"{source}: JSON of another kind (found {found}); expected 'paths' (taxonomy.json) or "
        "'images' (an Atlas catalogue)"
    )


def _atlas_paths(images: object) -> Lines:
    """Yield each path of an Atlas catalogue once; the "line" is the image's position."""
    seen: set[CategoryPath] = set()
    position = 0
    try:
        for position, image in enumerate(images, 1):  # type: ignore[arg-type, var-annotated]
            for sentence in image.get("sentences", ()):
                path = tuple(name_value(token, "tokens") for token in sentence["tokens"])
                if path not in seen:
                    seen.add(path)
                    yield position, path, ""
    except RowError as error:
        raise _LineError(position, error.message) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise _LineError(position, f"not an image of an Atlas catalogue: {error!r}") from None
