"""The command line: which commands there are, and what their errors end in."""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from atlas_ray import __version__
from atlas_ray.commands import catalogs, collection, demo, embedding, reviewing, scoring, serving, taxonomies, training
from atlas_ray.commands.exits import EXIT_FAILED, EXIT_USER
from atlas_ray.errors import RunError, UserError
from atlas_ray.flags import FlagParser

Command = Callable[[argparse.Namespace], int]
Flags = Callable[[argparse.ArgumentParser], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: all well. 2: a mistake in what was given, said in one line. 3: finished, but with more
    quarantined than allowed. 1: anything else.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except UserError as error:
        # One that a Ray task raised comes with the traceback of the task as its text.
        print(f"atlas-ray {options.command}: {getattr(error, 'cause', error)}", file=sys.stderr)
        return EXIT_USER
    except BrokenPipeError:  # the reader of a pipe went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        cause = _told(error)
        if cause is None:
            raise
        print(f"atlas-ray {options.command}: {getattr(cause, 'cause', cause)}", file=sys.stderr)
        return EXIT_USER if isinstance(cause, UserError) else EXIT_FAILED
    except KeyboardInterrupt:
        print(
            f"atlas-ray {options.command}: stopped; the same command goes on from here",
            file=sys.stderr,
        )
        return EXIT_FAILED


def _told(error: BaseException) -> UserError | RunError | None:
    """Find what one line tells, behind an error that came out of a worker process."""
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if isinstance(one, UserError | RunError):
            return one
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            pending += [one.__cause__, getattr(one, "cause", None)]
            pending += list(getattr(one, "worker_failures", {}).values())
    return None


class _Parser(FlagParser):
    """A parser whose flags are added when its command is chosen: some come from slow imports."""

    flags: Flags | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the flags, then parse."""
        if self.flags is not None:
            add, self.flags = self.flags, None
            add(self)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="atlas-ray",
        description="Put every product of a catalogue into its place in a taxonomy, on Ray.",
        epilog="Every path is a local path or an s3://bucket/key URI. AWS_ENDPOINT_URL names an "
        "S3-compatible service, RAY_ADDRESS a Ray cluster; without it a local Ray starts by itself.",
    )
    parser.add_argument("--version", action="version", version=f"atlas-ray {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Command, add: Flags, text: str, into: Any = commands) -> None:
        sub: _Parser = into.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
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
        command(kind, training.run_train, add, f"train {text}", train)
        add = functools.partial(training.add_tune, kind=kind)
        command(kind, training.run_tune, add, f"search learning rates, decay, dropout and smoothing of {text}", tune)
    command(
        "text",
        training.run_train,
        functools.partial(training.add_train, kind="text"),
        "train the model that reads titles, or descriptions",
        train,
    )
    command(
        "image-labels",
        training.run_train,
        functools.partial(training.add_train, kind="image-labels"),
        "train the model that names the labels of a picture",
        train,
    )
    command(
        "fusion",
        training.run_train,
        functools.partial(training.add_train, kind="fusion"),
        "fit the policy that fuses models of pictures, titles and descriptions",
        train,
    )
    command(
        "fusion",
        training.run_tune,
        functools.partial(training.add_tune, kind="fusion"),
        "search the shape of a policy's network, and how it learns",
        tune,
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
    command("crawl", collection.run_crawl, collection.add_crawl, "collect products and pictures from shop pages")
    command("fetch", collection.run_fetch, collection.add_fetch, "download the pictures of a catalogue of URLs")
    command("filter", collection.run_filter, collection.add_filter, "tell zoomed pictures from normal ones")
    command(
        "duplicates",
        collection.run_duplicates,
        collection.add_duplicates,
        "find pictures that several products have, and keep them on one side of the split",
    )
    command("score", scoring.run_score, scoring.add_score, "give every product of a catalogue its category path")
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
    command(
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


if __name__ == "__main__":
    sys.exit(main())
