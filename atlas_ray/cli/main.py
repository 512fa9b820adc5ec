"""The command line: which commands there are, and what their errors end in."""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from atlas_ray import __version__
from atlas_ray.cli import catalogs, collection, embedding, reviewing, scoring, serving, taxonomies, training
from atlas_ray.cli.command import EXIT_FAILED, EXIT_USER
from atlas_ray.demo import run as demo
from atlas_ray.errors import LeaseLostError, UserError, reason_of
from atlas_ray.flags import FlagParser
from atlas_ray.runtime.stops import stoppable

Command = Callable[[argparse.Namespace], int]
Flags = Callable[[argparse.ArgumentParser], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: all well. 2: a mistake in what was given, said in one line. 3: finished, but with more
    quarantined than allowed. 1: anything else.
    """
    options = argparse.Namespace(command="", resumes=False)
    with stoppable() as stop:
        try:
            options = _parser().parse_args(arguments)
            return int(options.run(options))
        except BrokenPipeError:  # the reader of a pipe went away
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_FAILED
        except (Exception, KeyboardInterrupt) as error:
            return _failed(error, options, stopped=stop.asked)


def run(arguments: Sequence[str]) -> int:
    """Run a command within another one, which says how it ended where it did not end well; return its exit code."""
    options = _parser().parse_args(arguments)
    return int(options.run(options))


def _failed(error: BaseException, options: argparse.Namespace, *, stopped: bool) -> int:
    """Say in a line what ended a command, and return its exit code; raise what only a traceback explains."""
    name = f"atlas-ray {options.command}".strip()
    reason = reason_of(error)
    # What libraries raise where they are stopped in the middle is no mistake and no failure.
    if isinstance(error, KeyboardInterrupt) or (stopped and not isinstance(reason, LeaseLostError)):
        goes_on = "; the same command goes on from here" if options.resumes else ""
        print(f"{name}: stopped{goes_on}", file=sys.stderr)
        return EXIT_FAILED
    if reason is None:
        raise error
    print(f"{name}: {reason}", file=sys.stderr)
    return EXIT_USER if isinstance(reason, UserError) else EXIT_FAILED


class _Parser(FlagParser):
    """A parser whose flags are added when its command is chosen: some come from slow imports."""

    flags: Flags | None = None

    def add_flags(self) -> None:
        """Add the flags of the command."""
        if self.flags is not None:
            add, self.flags = self.flags, None
            add(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the flags, then parse."""
        self.add_flags()
        return super().parse_known_args(args, namespace)


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command with its flags, by the command's words; that of all of them has the name ""."""
    parsers: dict[str, argparse.ArgumentParser] = {}
    pending: list[tuple[str, Any]] = [("", _parser())]
    while pending:
        name, parser = pending.pop(0)
        parsers[name] = parser
        if isinstance(parser, _Parser):
            parser.add_flags()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                pending[:0] = [(f"{name} {verb}".strip(), below) for verb, below in action.choices.items()]
    return parsers


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="atlas-ray",
        description="Put every product of a catalogue into its place in a taxonomy, on Ray.",
        epilog="Every path is a local path or an s3://bucket/key URI. AWS_ENDPOINT_URL names an "
        "S3-compatible service, RAY_ADDRESS a Ray cluster; without it a local Ray starts by itself.",
    )
    parser.add_argument("--version", action="version", version=f"atlas-ray {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Command, add: Flags, text: str, into: Any = commands, *, resumes: bool = False) -> None:
        sub: _Parser = into.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run, resumes=resumes)
        sub.flags = add

    def group(name: str, text: str, dest: str = "model_kind", metavar: str = "MODEL") -> Any:
        sub = commands.add_parser(name, help=text, description=text)
        return sub.add_subparsers(dest=dest, required=True, metavar=metavar)

    command("import", catalogs.run_import, catalogs.add_import, "turn a catalogue of another layout into tables")
    command("select", catalogs.run_select, catalogs.add_select, "make a catalogue of the products that a list names")
    taxonomy = group("taxonomy", "look at a taxonomy, and follow it to its next version", "action", "ACTION")
    command("show", taxonomies.run_show, taxonomies.add_source, "draw a taxonomy as a tree", taxonomy)
    command("check", taxonomies.run_check, taxonomies.add_source, "check a file and count its paths", taxonomy)
    command("diff", taxonomies.run_diff, taxonomies.add_diff, "tell what became of each path", taxonomy)
    command(
        "migrate",
        taxonomies.run_migrate,
        taxonomies.add_migrate,
        "rewrite a scoring run, or a catalogue's labels, to the next version",
        taxonomy,
    )
    train, tune = group("train", "train a model"), group("tune", "search good settings for a training")
    for kind, text in (
        ("classifier", "the model that tells leaf paths apart"),
        ("encoder-decoder", "the model that spells category paths"),
    ):
        add = functools.partial(training.add_train, kind=kind)
        command(kind, training.run_train, add, f"train {text}", train, resumes=True)
        add = functools.partial(training.add_tune, kind=kind)
        searched = f"search learning rates, decay, dropout and smoothing of {text}"
        command(kind, training.run_tune, add, searched, tune, resumes=True)
    command(
        "text",
        training.run_train,
        functools.partial(training.add_train, kind="text"),
        "train the model that reads titles, or descriptions",
        train,
        resumes=True,
    )
    command(
        "image-labels",
        training.run_train,
        functools.partial(training.add_train, kind="image-labels"),
        "train the model that names the labels of a picture",
        train,
        resumes=True,
    )
    command(
        "fusion",
        training.run_train,
        functools.partial(training.add_train, kind="fusion"),
        "fit the policy that fuses models of pictures, titles and descriptions",
        train,
        resumes=True,
    )
    command(
        "fusion",
        training.run_tune,
        functools.partial(training.add_tune, kind="fusion"),
        "search the shape of a policy's network, and how it learns",
        tune,
        resumes=True,
    )
    command(
        "zoom",
        training.run_train_zoom,
        training.add_train_zoom,
        "train the filter that tells zoomed pictures from normal ones",
        train,
    )
    command(
        "calibrate",
        training.run_calibrate,
        training.add_calibrate,
        "make a model's probabilities ones that can be trusted, on products it was not trained on",
    )
    command(
        "import-checkpoint",
        training.run_import_checkpoint,
        training.add_import_checkpoint,
        "turn a published Atlas checkpoint into a model",
    )
    stage = functools.partial(command, resumes=True)
    stage("crawl", collection.run_crawl, collection.add_crawl, "collect products and pictures from shop pages")
    stage("fetch", collection.run_fetch, collection.add_fetch, "download the pictures of a catalogue of URLs")
    stage("filter", collection.run_filter, collection.add_filter, "tell zoomed pictures from normal ones")
    stage(
        "duplicates",
        collection.run_duplicates,
        collection.add_duplicates,
        "find pictures that several products have, and keep them on one side of the split",
    )
    stage("score", scoring.run_score, scoring.add_score, "give every product of a catalogue its category path")
    command("evaluate", scoring.run_evaluate, scoring.add_evaluate, "compare scored products with their labels")
    command(
        "evaluate-labels",
        scoring.run_evaluate_labels,
        scoring.add_evaluate_labels,
        "compare what models of labels name with what products have",
    )
    command(
        "explain", scoring.run_explain, scoring.add_explain, "draw where a model looked at a picture, level by level"
    )
    stage(
        "embed", embedding.run_embed, embedding.add_embed, "give every product of a catalogue a vector, and index them"
    )
    command(
        "similar",
        embedding.run_similar,
        embedding.add_similar,
        "find similar products, or nearly identical ones whose labels differ",
    )
    command("review", reviewing.run_review, reviewing.add_review, "list the products most worth a person's look")
    command("relabel", reviewing.run_relabel, reviewing.add_relabel, "take a person's corrections over as labels")
    command("compare", reviewing.run_compare, reviewing.add_compare, "tell what moved between two scoring runs")
    command("serve", serving.run_serve, serving.add_serve, "answer over HTTP, with a page to try it")
    command("token", serving.run_token, serving.add_token, "make a token for somebody who may ask the endpoint")
    command("categorize", serving.run_categorize, serving.add_categorize, "ask a running endpoint about some pictures")
    command("demo", demo.run_demo, demo.add_demo, "draw a sample catalogue, train on it, score and evaluate it")
    return parser
