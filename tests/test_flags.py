"""Flags given twice, over all commands."""

import argparse
from typing import Any

import pytest

from atlas_ray.cli.main import command_parsers
from atlas_ray.fetching.run import FetchConfig
from atlas_ray.settings import REPEATABLE

LISTS = {"allow_private", "image_prefixes", "map", "model", "only", "tokens"}


TREE = command_parsers()
FLAGS = [
    (name, action)
    for name, parser in TREE.items()
    for action in parser._actions
    if action.option_strings and not isinstance(action, argparse._HelpAction | argparse._VersionAction)
]


def twice(action: argparse.Action) -> list[str]:
    """Return a flag given twice, the second time by its other name where it has one."""
    value = next(iter(action.choices or ()), {int: "1", float: "0.5"}.get(action.type, "a=b"))  # type: ignore[call-overload]
    values = [] if action.nargs == 0 else [value]
    return [action.option_strings[0], *values, action.option_strings[-1], *values]


@pytest.mark.long
@pytest.mark.parametrize(("name", "action"), FLAGS, ids=lambda one: one if isinstance(one, str) else one.dest)
def test_a_flag_given_twice_is_kept_twice_or_refused(
    name: str, action: argparse.Action, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = TREE[name]
    groups: list[Any] = [*parser._actions, *parser._mutually_exclusive_groups]
    needless = [(other, other.required) for other in groups]
    for other, _ in needless:
        other.required = False
    places = [other for other in parser._actions if not other.option_strings]
    try:
        if isinstance(action, REPEATABLE):
            options, _ = parser.parse_known_args([*twice(action), *("x" for _ in places)])
            assert getattr(options, action.dest) in ("a=b,a=b", ["a=b", "a=b"])
        else:
            with pytest.raises(SystemExit) as ended:
                parser.parse_known_args([*twice(action), *("x" for _ in places)])
            assert ended.value.code == 2
            assert "given twice; it takes one value" in capsys.readouterr().err
    finally:
        for other, required in needless:
            other.required = required


def test_what_holds_several_values_may_be_repeated() -> None:
    assert len(FLAGS) > 200
    assert {action.dest for _, action in FLAGS if isinstance(action, REPEATABLE)} >= LISTS
    between_commas = [action for _, action in FLAGS if "by commas" in (action.help or "")]
    assert all(isinstance(action, REPEATABLE) for action in between_commas)


def test_a_parser_starts_anew_each_time() -> None:
    options = [TREE["fetch"].parse_args(["--catalog", "a", "--output", "b"]) for _ in range(2)]
    assert options[0] == options[1]


def test_short_forms_and_equals_signs_count_as_the_same_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--timeout-s=1", "--timeout-s", "2"], ["--timeout-s", "1", "--timeo=2"]):
        with pytest.raises(SystemExit):
            TREE["fetch"].parse_args(["--catalog", "a", "--output", "b", *arguments])
        assert "--timeout-s: given twice" in capsys.readouterr().err


def test_repeated_places_and_those_between_commas_are_one_list() -> None:
    arguments = ["--model", "m", "--allow-private", "a:1,b:2", "--allow-private", "c:3"]
    assert TREE["serve"].parse_args(arguments).allow_private == "a:1,b:2,c:3"
    rule = FetchConfig(catalog="c", output="o", allow_private="a:1,b:2,c:3").rule()
    assert rule.allow_private == {"a:1", "b:2", "c:3"}
