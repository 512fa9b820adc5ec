"""Reference pages written from the code: commands, settings, tables, error codes, HTTP and Python interface.

`docs/conf.py` calls `write` each time that the documentation is built.
"""

import argparse
import ast
import dataclasses
import importlib
import inspect
import itertools
import logging
import pkgutil
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa

import atlas_ray
from atlas_ray import schemas
from atlas_ray.cli.main import DESCRIPTION, command_parsers
from atlas_ray.errors import CODES, RETRYABLE_CODES
from atlas_ray.evaluation import columns, comparison, label_comparison, label_run, labels, paths, review
from atlas_ray.runs.run_record import KEYS
from atlas_ray.runs.tally import LEFT_OUT
from atlas_ray.serving.api import build_api
from atlas_ray.serving.settings import ServeConfig

NOTE = "% Written by docs/generate.py; a change here is lost.\n"
DEFAULT = re.compile(r" \((?:default: (.*)|required)\)$")
PUBLIC = (
    "atlas_ray.client.Client", "atlas_ray.client.Categorized", "atlas_ray.client.Alternative", "atlas_ray.client.Label"
)  # fmt: skip
"""What is documented of the Python interface besides the names that the package itself exports."""


def write(folder: Path) -> None:
    """Write all reference pages into a folder."""
    pages = {
        "cli": cli_page(),
        "settings": settings_page(),
        "tables": tables_page(),
        "run-json": run_page(),
        "errors": errors_page(),
        "http-api": http_page(),
        "python-api": python_page(),
    }
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != NOTE + text:
            path.write_text(NOTE + text, encoding="utf-8")


def cli_page() -> str:
    """Return the page of all commands and their flags."""
    parsers = command_parsers()
    whole = parsers.pop("")
    parts = [f"# Command line\n\n{_text(DESCRIPTION)}\n\n{_text(whole.epilog)}"]
    for name, parser in parsers.items():
        if any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
            continue  # a group: its commands follow
        usage = _usage(parser)
        parts.append(f"## atlas-ray {name}\n\n{_sentence(parser.description)}\n\n```text\n{usage}\n```")
        rows = [_flag_row(parser, action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
        parts.append(_table(("flag", "default", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def _usage(parser: argparse.ArgumentParser) -> str:
    """Return how a command is called: what it needs, and [FLAGS] for the rest."""
    words = [parser.prog]
    for action in parser._actions:
        if not action.option_strings:
            words.append(_value_name(action))
        elif _required(action):
            words += [action.option_strings[-1], _value_name(action)]
    return " ".join([*words, "[FLAGS]"])


def _required(action: argparse.Action) -> bool:
    return action.required or (action.help or "").endswith(" (required)")


def _flag_row(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str, str]:
    text = parser._get_formatter()._expand_help(action)
    shown = DEFAULT.search(text)
    default = (shown[1] if shown else "") or ""
    if not shown and action.default not in (None, argparse.SUPPRESS, False, "", []):
        default = str(action.default)
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{_value_name(action)}`"
    if action.option_strings and action.nargs != 0:
        names = f"{names} `{_value_name(action)}`"
    if _required(action):
        default = "required"
    elif default:
        default = _text(default) if " " in default else f"`{default}`"
    return names, default, _text(DEFAULT.sub("", text))


def _value_name(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices:
        return "|".join(map(str, action.choices))
    return action.dest.upper()


def settings_page() -> str:
    """Return the page of all settings classes: what a YAML file and Python may set."""
    parts = [
        "# Settings\n\nThe classes behind the flags. A field has the flag of its name (`batch_size` is "
        "`--batch-size`); `--config FILE.yaml` takes fields by their names, and Python takes the class itself."
    ]
    for kind in settings_classes():
        rows = [_setting_row(field, hint) for field, hint in _settings_of(kind)]
        home = f"`{kind.__module__}.{kind.__qualname__}`"
        parts.append(f"## {kind.__name__}\n\n{_first(kind.__doc__)}\n\n{home}")
        parts.append(_table(("field", "type", "default", "allowed", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def settings_classes() -> list[type]:
    """Return all dataclasses of the package that have settings of their own, by name."""
    kinds = {
        kind
        for module in package_modules()
        for kind in vars(module).values()
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
    }
    return sorted((kind for kind in kinds if _settings_of(kind)), key=lambda kind: kind.__name__)


def package_modules() -> Iterator[ModuleType]:
    """Import and yield every module of the package."""
    for found in pkgutil.walk_packages(atlas_ray.__path__, "atlas_ray."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def _settings_of(kind: type) -> list[tuple["dataclasses.Field[Any]", Any]]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return [(field, hints[field.name]) for field in fields if "help" in field.metadata]


def _setting_row(field: "dataclasses.Field[Any]", hint: Any) -> tuple[str, ...]:
    metadata = field.metadata
    allowed = ", ".join(f"`{choice}`" for choice in metadata["choices"])
    if metadata["low"] is not None:
        allowed = f"{metadata['low']:,} to {metadata['high']:,}"
    if metadata["several"]:
        allowed = f"{allowed} several, separated by commas".strip()
    default = "required" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
    return f"`{field.name}`", f"`{_type_name(hint)}`", default, allowed, _text(metadata["help"])


def _type_name(hint: Any) -> str:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return " or ".join("None" if part is types.NoneType else getattr(part, "__name__", str(part)) for part in parts)


def tables_page() -> str:
    """Return the page of all tables that the project reads and writes."""
    parts = ["# Tables\n\nEvery table is a folder of Parquet files with the columns below, in this order."]
    texts = {name.lower(): text for name, text in _attribute_docs(schemas).items()} | columns.TABLES
    for name, schema in tables().items():
        parts.append(f"## {name}\n\n{texts.get(name, '')}")
        meanings = schemas.COLUMNS | (columns.COLUMNS if name in columns.TABLES else {})
        rows = [
            (f"`{field.name}`", f"`{field.type}`", "yes" if field.nullable else "no", meanings[field.name])
            for field in schema
        ]
        parts.append(_table(("column", "type", "may be null", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def tables() -> dict[str, pa.Schema]:
    """Return the schemas of all tables by name."""
    data = {name.lower(): value for name, value in vars(schemas).items() if isinstance(value, pa.Schema)}
    measured = paths.TABLES | {"new_paths": paths.NEW_PATHS, paths.FITTED: LEFT_OUT}
    return {
        **data,
        "embeddings": schemas.embeddings(512),
        **{f"evaluation/{name}": schema for name, schema in measured.items()},
        "evaluation/labels": label_run.TABLES["labels"],
        "models": labels.MODELS,
        "missed": labels.MISSED,
        "overlap": labels.OVERLAP,
        "labels of a comparison": label_comparison.LABELS,
        "moves": comparison.MOVES,
        "products of a comparison": comparison.CHANGED,
        "queue": review.QUEUE,
    }


def _attribute_docs(module: ModuleType) -> dict[str, str]:
    """Return the texts that stand below the constants of a module."""
    body = ast.parse(inspect.getsource(module)).body
    texts = {}
    for before, node in itertools.pairwise(body):
        if isinstance(before, ast.Assign) and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            name = before.targets[0]
            if isinstance(name, ast.Name):
                texts[name.id] = inspect.cleandoc(str(node.value.value))
    return texts


def run_page() -> str:
    """Return the page of the keys of `run.json`."""
    rows = [(f"`{key}`", ", ".join(jobs) or "all", meaning) for key, (jobs, meaning) in KEYS.items()]
    return (
        "# run.json\n\nA finished run has this file beside its tables. It is written last: a folder without it holds a "
        "run that was stopped.\n\n" + _table(("key", "commands", "meaning"), rows) + "\n"
    )


def errors_page() -> str:
    """Return the page of all error codes."""
    rows = [
        (f"`{code}`", ", ".join(stages), "yes" if code in RETRYABLE_CODES else "", meaning)
        for code, (stages, meaning) in CODES.items()
    ]
    return (
        "# Error codes\n\nA code names what is wrong with one input. It stands in the `error_code` of a quarantine "
        "table, in `picture_error`, and in the endpoint's answers, and is part of the interface. `serve` is the "
        "endpoint, which refuses a request with a problem document (RFC 9457), or one of its pictures in the result; "
        "the other stages are those of the quarantine table. What may pass is asked for again a few times at once, and "
        "by `--retry-failed` later.\n\n" + _table(("code", "stages", "may pass", "meaning"), rows) + "\n"
    )


def http_page() -> str:
    """Return the page of the endpoint's routes and documents."""
    document = openapi()
    parts = [
        "# HTTP API\n\nWhat `atlas-ray serve` answers; a running endpoint describes itself at `/docs` and "
        "`/openapi.json`. Refusals are problem documents (RFC 9457) whose `code` is one of {doc}`errors`."
    ]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            parts.append(f"## {method.upper()} {path}\n\n{_sentence(route.get('description') or route['summary'])}")
            for kind, content in route.get("requestBody", {}).get("content", {}).items():
                parts.append(f"Body as `{kind}`:")
                parts.append(_fields_table(content["schema"]))
            rows = [
                (f"`{status}`", _text(answer["description"]), _schema_link(answer))
                for status, answer in sorted(route["responses"].items())
            ]
            parts.append(_table(("status", "meaning", "document"), rows))
    parts.append("## Documents")
    for name, schema in sorted(document["components"]["schemas"].items()):
        if "properties" in schema:
            parts.append(f"### {name}\n\n{_first(schema.get('description'))}")
            parts.append(_fields_table(schema))
    return "\n\n".join(parts) + "\n"


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document of the endpoint."""
    config = ServeConfig(model="model", allow_anonymous=True)
    gateway: Any = SimpleNamespace(config=config, names=["default"], draining=False, running=0)
    guard: Any = build_api(gateway)
    document: dict[str, Any] = guard.app.openapi()
    return document


def _fields_table(schema: Mapping[str, Any]) -> str:
    needed = schema.get("required", ())
    rows = [
        (f"`{name}`", _json_type(field), "yes" if name in needed else "", _text(field.get("description", "")))
        for name, field in schema["properties"].items()
    ]
    return _table(("field", "type", "required", "meaning"), rows)


def _json_type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_json_type(part) for part in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_json_type(field['items'])}"
    return f"{field.get('type', 'any')}{' (file)' if field.get('format') == 'binary' else ''}"


def _schema_link(answer: Mapping[str, Any]) -> str:
    schemas = [content.get("schema", {}) for content in answer.get("content", {}).values()]
    return ", ".join(_json_type(schema) for schema in schemas if "$ref" in schema)


def python_page() -> str:
    """Return the page of the public Python names."""
    names = [f"atlas_ray.{name}" for name in getattr(atlas_ray, "__all__", ()) if not name.startswith("__")]
    parts = [
        "# Python API\n\nThe names on this page are an interface: each change to them stands in "
        "{doc}`/contributing/changelog`. All others may change at any time."
    ]
    documented = {_object(name) for name in names}
    for name in [*names, *(name for name in PUBLIC if _object(name) not in documented)]:
        found = _object(name)
        directive = "autoclass" if inspect.isclass(found) else "autofunction"
        options = "\n   :members:" if directive == "autoclass" else ""
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. {directive}:: {name}{options}\n```")
    return "\n\n".join(parts) + "\n"


def _object(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _text(text: str | None) -> str:
    """Return a help text as one line of Markdown."""
    parts = " ".join((text or "").split()).split("`")
    plain = (re.sub(r"([<*\[\]])", r"\\\1", part) for part in parts[::2])  # the others are code
    parts[::2] = [re.sub(r"(?<![\w-])(--[a-z][a-z0-9-]*)", r"`\1`", part) for part in plain]
    return "`".join(parts)


def _sentence(text: str | None) -> str:
    words = _text(text)
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _first(text: str | None) -> str:
    """Return the first paragraph of a docstring."""
    return _text(inspect.cleandoc(text or "").partition("\n\n")[0])


if __name__ == "__main__":
    logging.getLogger("ray").setLevel(logging.ERROR)
    write(Path(__file__).parent / "reference")
