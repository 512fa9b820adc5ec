"""The command line: the table of commands, its parser, and the exit codes of errors."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atlas_ray.cli.command import EXIT_FAILED, EXIT_USER
from atlas_ray.errors import LeaseLostError, UserError, reason_of
from atlas_ray.runtime.stops import stoppable
from atlas_ray.settings import FlagParser
from atlas_ray.version import __version__


@dataclass(frozen=True)
class Command:
    """A command. Its module is imported once it is chosen, since some flags come from slow imports.

    Attributes:
        module: The module in `atlas_ray.cli`, with `flags(parser)` and `run(options)`.
        text: What the command does, for the help.
        kind: The kind of model, for a module that serves several; then it is `flags(parser, kind)`.
        resumes: Whether the same command goes on after a stop.
    """

    module: str
    text: str
    kind: str = ""
    resumes: bool = False


COMMANDS: dict[str, dict[str, Command]] = {
    "catalogue": {
        "import": Command("import_", "turn a catalogue of another layout into tables"),
        "catalog stats": Command("catalog_stats", "describe a catalogue on a page: paths, texts, pictures, languages"),
        "select": Command("select", "make a catalogue of the products that a list names"),
        "sample": Command("sample", "draw a smaller catalogue in which every category path keeps its share"),
        "fetch": Command("fetch", "download the pictures of a catalogue of URLs", resumes=True),
        "crawl": Command("crawl", "collect products and pictures from shop pages", resumes=True),
        "filter": Command("filter", "tell zoomed pictures from normal ones", resumes=True),
        "duplicates": Command(
            "duplicates",
            "find pictures that several products have, and keep them on one side of the split",
            resumes=True,
        ),
    },
    "taxonomy": {
        "taxonomy show": Command("taxonomy_show", "draw a taxonomy as a tree"),
        "taxonomy check": Command("taxonomy_check", "check a file and count its paths"),
        "taxonomy diff": Command("taxonomy_diff", "tell what became of each path"),
        "taxonomy migrate": Command(
            "taxonomy_migrate", "rewrite a scoring run, or a catalogue's labels, to the next version"
        ),
    },
    "models": {
        "train classifier": Command("train", "train the model that tells leaf paths apart", "classifier", resumes=True),
        "train encoder-decoder": Command(
            "train", "train the model that spells category paths", "encoder-decoder", resumes=True
        ),
        "train text": Command("train", "train the model that reads titles, or descriptions", "text", resumes=True),
        "train text-encoder-decoder": Command(
            "train",
            "train the model that spells category paths from titles, or descriptions",
            "text-encoder-decoder",
            resumes=True,
        ),
        "train image-labels": Command(
            "train", "train the model that names the labels of a picture", "image-labels", resumes=True
        ),
        "train fusion": Command(
            "train_fusion",
            "fit the policy that fuses models of pictures, titles and descriptions",
            "fusion",
            resumes=True,
        ),
        "train head": Command(
            "train_head", "train a classifier over the vectors of `embed`, in seconds", "head", resumes=True
        ),
        "train zero-shot": Command(
            "train_zero_shot", "make a model without a label, of a taxonomy's names and a sentence encoder"
        ),
        "train zoom": Command("train_zoom", "train the filter that tells zoomed pictures from normal ones"),
        "tune classifier": Command(
            "tune", "search settings of the model that tells leaf paths apart", "classifier", resumes=True
        ),
        "tune encoder-decoder": Command(
            "tune", "search settings of the model that spells category paths", "encoder-decoder", resumes=True
        ),
        "tune text": Command("tune", "search settings of a model of titles or descriptions", "text", resumes=True),
        "tune text-encoder-decoder": Command(
            "tune", "search settings of the model that spells paths from texts", "text-encoder-decoder", resumes=True
        ),
        "tune image-labels": Command(
            "tune", "search settings of the model that names the labels of a picture", "image-labels", resumes=True
        ),
        "tune fusion": Command(
            "tune", "search the shape of a policy's network, and how it learns", "fusion", resumes=True
        ),
        "calibrate": Command(
            "calibrate", "make a model's probabilities ones that can be trusted, on products it was not trained on"
        ),
        "optimize": Command("optimize", "make a model that answers faster on CPUs, and measure how well it agrees"),
        "import-checkpoint": Command("import_checkpoint", "turn a published Atlas checkpoint into a model"),
    },
    "answers": {
        "score": Command("score", "give every product of a catalogue its category path", resumes=True),
        "update": Command(
            "update", "take new rows into a catalogue, score what they changed, and tell what moved", resumes=True
        ),
        "evaluate": Command("evaluate", "compare scored products with their labels"),
        "evaluate-labels": Command("evaluate_labels", "compare what models of labels name with what products have"),
        "explain": Command("explain", "show where a model looked at a picture or a text, level by level"),
        "review": Command("review", "list the products most worth a person's look"),
        "relabel": Command("relabel", "take a person's corrections over as labels"),
        "compare": Command("compare", "tell what moved between two scoring runs"),
        "export": Command("export", "write a scoring run into one file for a shop's backend"),
        "publish": Command("publish", "make a scoring run one commit of an Iceberg or a Delta table", resumes=True),
        "embed": Command("embed", "give every product of a catalogue a vector, and index them", resumes=True),
        "similar": Command("similar", "find similar products, or nearly identical ones whose labels differ"),
    },
    "endpoint": {
        "serve": Command("serve", "answer over HTTP, with a page to try it"),
        "token": Command("token", "make a token for somebody who may ask the endpoint"),
        "categorize": Command("categorize", "ask a running endpoint about some pictures"),
    },
    "start": {
        "demo": Command("demo", "draw and serve a shop, crawl it, train on it, score and evaluate it"),
    },
}
"""The commands, in the groups that the help shows; a name of two words belongs to the parser of the first."""
PARENTS = {
    "catalog": ("look at a catalogue", "action", "ACTION"),
    "taxonomy": ("look at a taxonomy, and follow it to its next version", "action", "ACTION"),
    "train": ("train a model", "model_kind", "MODEL"),
    "tune": ("search good settings for a training", "model_kind", "MODEL"),
}
"""Commands of two words: the first -> (its help, the option that holds the second, its metavar)."""
DESCRIPTION = "Put every product of a catalogue into its place in a taxonomy, on Ray."
EPILOG = """\
Every path is a local path, or an s3://, gs:// or az:// URI. AWS_ENDPOINT_URL names an S3-compatible service,
RAY_ADDRESS a Ray cluster; without it a local Ray starts by itself. `atlas-ray COMMAND --help` shows the flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: all well. 2: a mistake of the user, printed in one line. 3: finished, but with more
    quarantined than allowed. 1: anything else.
    """
    options = argparse.Namespace(command="", resumes=False)
    with stoppable() as stop:
        try:
            options = build_parser().parse_args(arguments)
            return int(options.handler(options))
        except BrokenPipeError:  # the reader of a pipe went away
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_FAILED
        except (Exception, KeyboardInterrupt) as error:
            return _failed(error, options, stopped=stop.asked)


def run(arguments: Sequence[str]) -> int:
    """Run a command inside another one, and return its exit code; the caller prints its failure."""
    options = build_parser().parse_args(arguments)
    return int(options.handler(options))


def _failed(error: BaseException, options: argparse.Namespace, *, stopped: bool) -> int:
    """Print in one line why a command failed, and return its exit code; re-raise an error of the program."""
    name = f"atlas-ray {options.command}".strip()
    reason = reason_of(error)
    # An error that a library raises because it was stopped is neither a mistake nor a failure.
    if isinstance(error, KeyboardInterrupt) or (stopped and not isinstance(reason, LeaseLostError)):
        goes_on = "; the same command goes on from here" if options.resumes else ""
        print(f"{name}: stopped{goes_on}", file=sys.stderr)
        return EXIT_FAILED
    if reason is None:
        raise error
    print(f"{name}: {reason}", file=sys.stderr)
    return EXIT_USER if isinstance(reason, UserError) else EXIT_FAILED


class CommandParser(FlagParser):
    """The parser of a command; it gets its flags when the command is chosen."""

    chosen: Command | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the flags, then parse."""
        self.add_command_flags()
        return super().parse_known_args(args, namespace)

    def add_command_flags(self) -> None:
        """Import the command's module and add its flags, once."""
        if self.chosen is None:
            return
        command, self.chosen = self.chosen, None
        module = importlib.import_module(f"atlas_ray.cli.{command.module}")
        module.flags(self, command.kind) if command.kind else module.flags(self)
        self.set_defaults(handler=module.run, resumes=command.resumes)


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command with its flags, by the command's words; that of all of them has the name ""."""
    parsers: dict[str, argparse.ArgumentParser] = {}
    pending: list[tuple[str, Any]] = [("", build_parser())]
    while pending:
        name, parser = pending.pop(0)
        parsers[name] = parser
        if isinstance(parser, CommandParser):
            parser.add_command_flags()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                pending[:0] = [(f"{name} {verb}".strip(), below) for verb, below in action.choices.items()]
    return parsers


def build_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        prog="atlas-ray",
        description=_described(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"atlas-ray {__version__}")
    parser.usage = "atlas-ray [-h] [--version] COMMAND ..."
    top = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="atlas-ray", help=argparse.SUPPRESS
    )
    parents: dict[str, Any] = {}
    for first, (text, dest, metavar) in PARENTS.items():
        parent = top.add_parser(first, description=text)
        parents[first] = parent.add_subparsers(dest=dest, required=True, metavar=metavar)
    for group in COMMANDS.values():
        for name, command in group.items():
            first, _, second = name.partition(" ")
            into = parents[first] if second else top
            sub: CommandParser = into.add_parser(second or first, help=command.text, description=command.text)
            sub.chosen = command
    return parser


def _described() -> str:
    """Return the head of the help: all commands by group, a line each."""
    width = max(len(name) for group in COMMANDS.values() for name in group)
    lines = [DESCRIPTION]
    for title, group in COMMANDS.items():
        lines += ["", f"{title}:"] + [f"  {name:<{width}}  {command.text}" for name, command in group.items()]
    return "\n".join(lines)
