"""Error codes in the source against the list that the reference page is made of."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import atlas_ray
from atlas_ray.errors import CODES, RETRYABLE_CODES

ROOT = Path(atlas_ray.__file__).parent
CODE_ARGUMENT = {
    "AnswerError": 0, "FetchError": 0, "ItemError": 0, "PictureError": 0, "RowError": 0, "Outcome": 0, "Refused": 0,
    "Problem": 1, "quarantine_row": 1,
}  # fmt: skip
"""Where a call has its error code."""
SUCCESSES = {"listing", "product"}
"""Outcomes of a crawled page that are no failures."""


class Module:
    """The error codes that one module raises."""

    def __init__(self, source: str, constants: dict[str, ast.expr]) -> None:
        self.tree = ast.parse(source)
        self.constants = constants | assigned(self.tree.body)

    def codes(self) -> Iterator[str]:
        yield from self._codes_in(self.tree, [])

    def _codes_in(self, node: ast.AST, functions: list[ast.AST]) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions = [*functions, node]
        for expression in code_expressions(node):
            yield from self._strings(expression, functions)
        for child in ast.iter_child_nodes(node):
            yield from self._codes_in(child, functions)

    def _strings(self, node: ast.expr, functions: list[ast.AST], seen: frozenset[str] = frozenset()) -> Iterator[str]:
        """Yield the codes that an expression may have as its value; what another error hands on yields none."""
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and re.fullmatch("[a-z]+(_[a-z]+)*", node.value):
                yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Name) and node.id not in seen:
            local = [value for function in functions for name, value in bound(function) if name == node.id]
            constant = [self.constants[node.id]] if node.id in self.constants else []
            for value in local or constant:
                yield from self._strings(value, functions, seen | {node.id})
        elif isinstance(node, ast.IfExp):
            parts: list[ast.expr] = [node.body, node.orelse]
            for part in parts:
                yield from self._strings(part, functions, seen)
        elif isinstance(node, ast.Dict | ast.Tuple | ast.List | ast.BoolOp):
            for part in node.values if isinstance(node, ast.Dict | ast.BoolOp) else node.elts:
                yield from self._strings(part, functions, seen)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "items"):
            for part in [node.func.value, *node.args[1:]]:
                yield from self._strings(part, functions, seen)


def code_expressions(node: ast.AST) -> list[ast.expr]:
    """Return the expressions of a node that are error codes."""
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        position = CODE_ARGUMENT.get(name, len(node.args))
        pairs = [word.value for word in node.keywords if word.arg == "error"]
        return node.args[position : position + 1] + [pair.elts[0] for pair in pairs if isinstance(pair, ast.Tuple)]
    if isinstance(node, ast.Assign) and any(isinstance(name, ast.Name) and name.id == "code" for name in node.targets):
        return [node.value]
    return []


def bound(function: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a function gives a value by an assignment or a loop."""
    for node in ast.walk(function):
        if isinstance(node, ast.For | ast.comprehension):
            for name in ast.walk(node.target):
                if isinstance(name, ast.Name):
                    yield name.id, node.iter
        elif isinstance(node, ast.stmt):
            yield from assigned([node]).items()


def assigned(body: list[ast.stmt]) -> dict[str, ast.expr]:
    """Return the values that statements assign to plain names."""
    values: dict[str, ast.expr] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            values[node.target.id] = node.value
        elif isinstance(node, ast.Assign):
            values |= {name.id: node.value for name in node.targets if isinstance(name, ast.Name)}
    return values


def raised_codes(sources: list[str]) -> set[str]:
    constants: dict[str, ast.expr] = {}
    for source in sources:
        constants |= assigned(ast.parse(source).body)
    return {code for source in sources for code in Module(source, constants).codes()} - SUCCESSES


def matches(pattern: str, code: str) -> bool:
    return re.fullmatch(pattern.replace("*", "[a-z_]+"), code) is not None


def test_raised_codes_are_listed_and_listed_codes_are_raised() -> None:
    raised = raised_codes([path.read_text() for path in sorted(ROOT.rglob("*.py"))])
    unlisted = {code for code in raised if not any(matches(code, listed) for listed in CODES)}
    assert unlisted == set(), "add them to atlas_ray.errors.CODES"
    unraised = {listed for listed in CODES if not any(matches(code, listed) for code in raised)}
    assert unraised == set(), "nothing in the package raises them"


def test_the_list_is_in_order_and_in_sentences() -> None:
    assert list(CODES) == sorted(CODES)
    assert all(stages and meaning.endswith(".") for stages, meaning in CODES.values())
    assert CODES.keys() >= RETRYABLE_CODES


def test_codes_are_seen_however_they_are_raised() -> None:
    sources = [
        'LATE = "late_one"\nBY_STATUS = {404: "gone", 500: "broken"}\nPAIRS = ((ValueError, "odd_pair"),)\n',
        "def f(status, key, error):\n"
        '    raise FetchError("plain" if status else "other", "a text")\n'
        "    raise Problem(503, LATE, 'detail')\n"
        "    code = BY_STATUS.get(status, 'fallback' if status < 500 else LATE)\n"
        "    row = quarantine_row('import', f'missing_{key}', 'a text')\n"
        "    answer(error=('in_a_tuple', 'text'))\n"
        "    raise RowError(error.code, 'handed on')\n"
        "    for kind, found in PAIRS:\n"
        "        raise Refused(found, 'text')\n"
        "    return Outcome('product')\n",
    ]
    expected = {"plain", "other", "late_one", "gone", "broken", "fallback", "missing_*", "in_a_tuple", "odd_pair"}
    assert raised_codes(sources) == expected
