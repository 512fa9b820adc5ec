"""Settings: dataclasses whose fields know their help text and their range.

From one definition come the flags of a command, the fields of a YAML file, and the refusal of what
is out of range.
"""

import argparse
import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field
from typing import Any, TypeVar

from atlas_ray.errors import ConfigError, OutputError

Config = TypeVar("Config")
COMMAND_LINE = "the command line"
"""The `source` of settings that were given as flags."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A base class of settings, whose fields are checked when they are set."""

    def __post_init__(self) -> None:
        """Refuse values of another type, out of range or not among the choices.

        Raises:
            ConfigError: naming the field, its value and what was expected.
        """
        for field, kind, optional in _fields(type(self)):
            value = getattr(self, field.name)
            if value is None and optional:
                continue
            allowed = (int, float) if kind is float else kind
            if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
                raise ConfigError(f"{field.name} is {value!r}; expected {_article(kind)}")
            choices: Collection[str] = field.metadata.get("choices", ())
            low: Any = field.metadata.get("low")
            high: Any = field.metadata.get("high")
            if choices and value not in choices:
                raise ConfigError(f"{field.name} is {value!r}; expected one of {', '.join(choices)}")
            # Written so that not-a-number, which compares with nothing, is refused too.
            if low is not None and not low <= value <= high:
                raise ConfigError(f"{field.name} is {value}; expected {low} to {high}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Range:
    """A range that a search draws a setting's values from; whole numbers if both ends are."""

    low: float
    high: float
    log: bool = False
    """Whether values are drawn evenly on a logarithmic scale."""


Domain = Range | tuple[str, ...]
"""The values of a setting that a search draws from: a range of numbers, or words."""


def setting(
    text: str,
    default: Any = MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] = (),
    several: bool = False,
) -> Any:
    """Define a field of a settings dataclass.

    Args:
        text: The help of its flag: what the setting means.
        default: The default value; without one the field must be given.
        low: The smallest allowed number.
        high: The largest allowed number.
        choices: The allowed values of a text; a dict may get more of them later.
        several: Whether a text holds several values, separated by commas; its flag may be repeated.
    """
    metadata = {"help": text, "low": low, "high": high, "choices": choices, "several": several}
    return dataclasses.field(default=default, metadata=metadata)


def build_settings(
    kind: type[Config], values: Mapping[str, Any], source: str, *, flags: Mapping[str, Any] | None = None
) -> Config:
    """Make settings from named values.

    Args:
        kind: The dataclass.
        values: Values by field, as a YAML file or flags give them.
        source: The file that the values come from, for messages; with `COMMAND_LINE` messages name flags.
        flags: Values by field that were given as flags, and win over the others.

    Raises:
        ConfigError: naming a field, or its flag, that is unknown, missing or out of range.
    """
    known = {field.name: field_kind for field, field_kind, _ in _fields(kind)}
    values = {**values, **(flags or {})}
    as_flags = known.keys() if source == COMMAND_LINE else (flags or {}).keys()
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the fields are {', '.join(known)}"
            raise ConfigError(f"{source}: no field {name!r}{hint}")
    # YAML 1.1 reads 1e-4, without a dot, as text.
    taken = {name: _number(value) if known[name] is float else value for name, value in values.items()}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in taken and field.default is MISSING and field.default_factory is MISSING:
            if source == COMMAND_LINE:
                raise ConfigError(f"{flag_of(field.name)} is missing")
            raise ConfigError(f"{source}: {field.name} is missing")
    try:
        return kind(**taken)
    except ConfigError as error:
        raise ConfigError(_with_flags(str(error), source, as_flags)) from None


def flag_of(name: str) -> str:
    """Return the flag of a field."""
    return f"--{name.replace('_', '-')}"


def _with_flags(message: str, source: str, names: Collection[str]) -> str:
    """Name fields in a message as the user wrote them: as flags, or with the file that they are in."""
    if source != COMMAND_LINE and message.partition(" ")[0] not in names:
        message = f"{source}: {message}"
    # A name of one word may be a word of the sentence, unless the sentence is about it.
    words = "|".join(rf"(?<![-\w]){re.escape(name)}\b" for name in names if "_" in name)
    begin = rf"^(?:{'|'.join(map(re.escape, names))})(?= (?:is|holds|has|with)\b)"
    pattern = f"{begin}|{words}" if words else begin
    return re.sub(pattern, lambda match: flag_of(match[0]), message) if names else message


def read_settings(uri: str) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        StorageError: if it cannot be read.
        ConfigError: if it is not a mapping of names to values.
    """
    import yaml

    from atlas_ray.io import storage

    try:
        values = yaml.safe_load(storage.read_bytes(uri))
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2024-13-45 is a ValueError
        raise ConfigError(f"{uri}: not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{uri}: holds a {type(values).__name__}; expected lines of `name: value`")
    return values


class Several(argparse.Action):
    """An action for a flag that may be repeated; it joins the values with commas."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: Any = None) -> None:
        """Add a value."""
        before = getattr(namespace, self.dest, "")
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


REPEATABLE = (Several, argparse._AppendAction)


class FlagParser(argparse.ArgumentParser):
    """A parser that refuses a flag given twice, unless it may be repeated."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments, and forget the flags of an earlier call."""
        self._given: set[argparse.Action] = set()
        return super().parse_known_args(args, namespace)

    def _get_values(self, action: argparse.Action, arg_strings: Any) -> Any:
        # argparse calls this each time that it meets an argument, whatever its kind.
        if action.option_strings and action in self._given and not isinstance(action, REPEATABLE):
            raise argparse.ArgumentError(action, "given twice; it takes one value")
        self._given.add(action)
        return super()._get_values(action, arg_strings)


def add_flags(parser: argparse.ArgumentParser, kind: type, skip: Sequence[str] = ()) -> None:
    """Add a flag for each field to a parser; flags that are not given are left out of the namespace."""
    for field, field_kind, _ in _fields(kind):
        if field.name in skip:
            continue
        silent = field.default in (None, "") or field.default is False
        shown = "" if silent else " (required)" if field.default is MISSING else f" (default: {field.default})"
        repeated = ", separated by commas; the flag may be repeated" if field.metadata["several"] else ""
        text = (field.metadata["help"] + repeated + shown).replace("%", "%%")
        keywords: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS, "dest": field.name}
        if field_kind is bool:
            keywords["action"] = argparse.BooleanOptionalAction
        else:
            keywords["type"] = field_kind
            if field.metadata["several"]:
                keywords["action"] = Several
            if field.metadata["choices"]:
                keywords["metavar"] = "|".join(field.metadata["choices"])
        parser.add_argument(flag_of(field.name), **keywords)


def flags_given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Return the flags of `add_flags` that were given."""
    return {name: value for name, value in vars(options).items() if name in {f.name for f, *_ in _fields(kind)}}


def pin_settings(output: str, name: str, settings: Mapping[str, Any]) -> None:
    """Write settings beside a run's output when it starts, and refuse to resume it with others.

    Args:
        output: The run's folder.
        name: The file in it that holds them.
        settings: JSON values by name.

    Raises:
        OutputError: if the file holds another value, naming both.
    """
    from atlas_ray.io import storage

    uri = storage.join(output, name)
    settings = json.loads(json.dumps(settings))
    if not storage.exists(uri):
        storage.write_bytes(uri, json.dumps(settings, indent=1, ensure_ascii=False).encode())
        return
    try:
        before = json.loads(storage.read_bytes(uri))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise OutputError(f"{uri} is damaged; use another output folder, or empty this one")
    for key, value in settings.items():
        if before.get(key) != value:
            raise OutputError(
                f"{output} holds a run with {key} = {before.get(key)!r}, this one has {value!r}; "
                "use a new folder, or the same settings"
            )


def _fields(kind: type) -> list[tuple["Field[Any]", type, bool]]:
    """Return the plain fields of a settings class, each one's type, and whether it may be None."""
    hints = typing.get_type_hints(kind)
    fields = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        optional = isinstance(hint, types.UnionType)
        hint = next(arg for arg in typing.get_args(hint) if arg is not types.NoneType) if optional else hint
        if hint in (str, int, float, bool):
            fields.append((field, hint, optional))
    return fields


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _article(kind: type) -> str:
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
