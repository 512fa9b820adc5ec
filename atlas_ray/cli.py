"""The command line: parse, configure, one library call a command.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from atlas_ray import __version__
from atlas_ray.errors import UserError

if TYPE_CHECKING:
    from atlas_ray.training.config import TrainConfig

EXIT_OK, EXIT_FAILED, EXIT_USER, EXIT_QUARANTINE = 0, 1, 2, 3
COMMAND_LINE = "the command line"
Command = Callable[[argparse.Namespace], int]


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
        print(f"atlas-ray {options.command}: {error}", file=sys.stderr)
        return EXIT_USER
    except BrokenPipeError:  # the reader of a pipe went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        cause = _user_error(error)
        if cause is None:
            raise
        print(f"atlas-ray {options.command}: {cause}", file=sys.stderr)
        return EXIT_USER
    except KeyboardInterrupt:
        print(
            f"atlas-ray {options.command}: stopped; the same command goes on from here",
            file=sys.stderr,
        )
        return EXIT_FAILED


def _user_error(error: BaseException) -> UserError | None:
    """Find the user's mistake behind an error that came out of a worker process."""
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if isinstance(one, UserError):
            return one
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            pending += [one.__cause__, getattr(one, "cause", None)]
            pending += list(getattr(one, "worker_failures", {}).values())
    return None


class _Parser(argparse.ArgumentParser):
    """A parser whose flags are added when its command is chosen: some come from slow imports."""

    flags: Callable[["_Parser"], None] | None = None

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

    def command(name: str, run: Command, text: str, into: Any = commands) -> "_Parser":
        sub: _Parser = into.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    _add_import(command("import", _import, "turn a catalogue of another layout into tables"))
    _add_taxonomy(command("taxonomy", _taxonomy, "show a taxonomy as a tree, or check a file"))
    train = commands.add_parser("train", help="train a model", description="train a model")
    models = train.add_subparsers(dest="model_kind", required=True, metavar="MODEL")
    for kind, text in (
        ("classifier", "train the model that tells leaf paths apart"),
        ("encoder-decoder", "train the model that spells category paths"),
    ):
        command(kind, _train, text, models).flags = functools.partial(_add_train, kind=kind)
    tune = commands.add_parser("tune", help="search good settings", description="search good settings for a training")
    models = tune.add_subparsers(dest="model_kind", required=True, metavar="MODEL")
    for kind in ("classifier", "encoder-decoder"):
        text = f"search learning rates, decay, dropout and smoothing of `train {kind}`"
        command(kind, _tune, text, models).flags = functools.partial(_add_tune, kind=kind)
    _add_import_checkpoint(
        command("import-checkpoint", _import_checkpoint, "turn a published Atlas checkpoint into a model")
    )
    command("score", _score, "give every product of a catalogue its category path").flags = _add_score
    _add_evaluate(command("evaluate", _evaluate, "compare scored products with their labels"))
    demo = command("demo", _demo, "draw a sample catalogue, train on it, score and evaluate it")
    demo.add_argument("--output", default="demo", help="folder of the demo (default: %(default)s)")
    return parser


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="Atlas JSON, CSV, JSON Lines, or a folder of category folders")
    parser.add_argument("--output", required=True, help="where the tables go")
    parser.add_argument("--format", default="auto", help="auto, atlas-json, csv, jsonl or folder")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="our field = the source's column",
    )
    parser.add_argument("--image-base", default="", help="folder that relative picture names are below")
    parser.add_argument("--taxonomy", help="refuse labels outside this taxonomy")
    parser.add_argument("--split", default="65/5/30", help="train/val/test shares (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--store", help="store of rows that name none")
    parser.add_argument("--path-separator", default=">", help="between names of a path (default: %(default)s)")


def _import(options: argparse.Namespace) -> int:
    from atlas_ray.catalog.importer import ImportConfig, import_catalog
    from atlas_ray.errors import ConfigError
    from atlas_ray.reports.terminal import print_import
    from atlas_ray.taxonomy import read_taxonomy

    columns = {}
    for entry in options.map:
        field, separator, column = entry.partition("=")
        if not separator or not column:
            raise ConfigError(f"--map {entry!r}; expected FIELD=COLUMN, such as title=product_name")
        columns[field] = column
    report = import_catalog(
        ImportConfig(
            source=options.source,
            output=options.output,
            format=options.format,
            columns=columns,
            image_base=options.image_base,
            taxonomy=read_taxonomy(options.taxonomy) if options.taxonomy else None,
            split=options.split,
            seed=options.seed,
            store=options.store,
            path_separator=options.path_separator,
        )
    )
    print_import(report)
    return EXIT_OK


def _add_taxonomy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "check"), help="draw the tree, or only check it")
    parser.add_argument("source", help="a taxonomy file, or the built-in atlas-52")
    parser.add_argument("--within", help="only the part at and below this path")


def _taxonomy(options: argparse.Namespace) -> int:
    from atlas_ray.taxonomy import parse_path, read_taxonomy

    taxonomy = read_taxonomy(options.source)
    if options.within:
        taxonomy = taxonomy.within(parse_path(options.within))
    if options.action == "show":
        for line in taxonomy.lines():
            print(line)
        print()
    version = f" {taxonomy.version}" if taxonomy.version else ""
    print(f"{taxonomy.name}{version}: {len(taxonomy.leaves)} leaves, {len(taxonomy.nodes)} nodes, id {taxonomy.id}")
    for level, count in enumerate(taxonomy.count_by_level(), 1):
        print(f"  level {level}: {count} nodes")
    return EXIT_OK


def _add_train(parser: argparse.ArgumentParser, kind: str) -> None:
    from atlas_ray.config import add_flags
    from atlas_ray.training.config import TRAININGS

    parser.add_argument("--config", metavar="FILE", help="a YAML file of the settings below; a flag wins over it")
    parser.add_argument("--fresh", action="store_true", help="delete an earlier run in the output and start anew")
    add_flags(parser, TRAININGS[kind])


def _training(options: argparse.Namespace) -> "TrainConfig":
    """Return a training's settings: those of the file, and over them the flags given."""
    from atlas_ray.config import build_settings, given, read_settings
    from atlas_ray.training.config import TRAININGS

    kind = TRAININGS[options.model_kind]
    file = read_settings(options.config) if options.config else {}
    return build_settings(kind, {**file, **given(options, kind)}, options.config or COMMAND_LINE)


def _train(options: argparse.Namespace) -> int:
    from atlas_ray.session import connect

    config = _training(options)

    from atlas_ray.training.run import train

    connect()
    report = train(config, fresh=options.fresh)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do (--fresh trains it anew)")
    print(f"model {report.model_id} in {report.output}")
    if refused := report.metrics["refused_pictures"]:
        print(f"{refused:.0f} pictures could not be used; see {report.output}/quarantine")
    print(
        f"best epoch {report.metrics['epoch']} of {len(report.metrics['history'])}: validation accuracy "
        f"{report.metrics['val_accuracy']:.4f} on {report.metrics['val_pictures']:.0f} pictures; "
        f"curves in {report.output}/curves.png"
    )
    return EXIT_OK


def _add_tune(parser: argparse.ArgumentParser, kind: str) -> None:
    from atlas_ray.config import add_flags
    from atlas_ray.training.config import TRAININGS, TuneConfig

    parser.add_argument("--config", metavar="FILE", help="a YAML file of the training's settings; a flag wins over it")
    add_flags(parser, TuneConfig)
    add_flags(parser, TRAININGS[kind])


def _tune(options: argparse.Namespace) -> int:
    from atlas_ray.config import build_settings, given
    from atlas_ray.session import connect
    from atlas_ray.training.config import TuneConfig

    training = _training(options)
    search = build_settings(TuneConfig, given(options, TuneConfig), COMMAND_LINE)

    from atlas_ray.training.tune import tune

    connect()
    report = tune(search, training)
    if report.already_done:
        print(f"{report.output} holds this search, finished; nothing to do")
    print(
        f"best of {len(report.trials)} trials: number {report.best['trial']}, validation accuracy "
        f"{report.best['val_accuracy']:.4f}; its model in {report.model}"
    )
    print(
        f"train with its settings: atlas-ray train {options.model_kind} --config {report.output}/best.yaml "
        f"--catalog {training.catalog} --output FOLDER"
    )
    return EXIT_OK


def _add_import_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="the .pth.tar file; nothing in it is executed")
    parser.add_argument("--word-map", required=True, help="its WORDMAP_*.json")
    parser.add_argument("--taxonomy", required=True, help="what it predicts: a file, or the built-in atlas-52")
    parser.add_argument("--output", required=True, help="where the model goes")
    parser.add_argument(
        "--image-size-px", type=int, default=150, help="side of the pictures it was trained on (default: %(default)s)"
    )


def _import_checkpoint(options: argparse.Namespace) -> int:
    from atlas_ray import storage
    from atlas_ray.checkpoints import import_checkpoint
    from atlas_ray.errors import OutputError
    from atlas_ray.taxonomy import read_taxonomy

    if storage.exists(storage.join(options.output, "model.json")):
        raise OutputError(f"{options.output} holds a model; name another folder with --output")
    model_id = import_checkpoint(
        options.checkpoint,
        options.word_map,
        options.output,
        taxonomy=read_taxonomy(options.taxonomy),
        image_size_px=options.image_size_px,
    )
    print(f"model {model_id} in {options.output}")
    return EXIT_OK


def _add_score(parser: argparse.ArgumentParser) -> None:
    from atlas_ray.config import add_flags
    from atlas_ray.predictors import PredictorConfig
    from atlas_ray.scoring.config import ScoreConfig

    add_flags(parser, ScoreConfig)
    add_flags(parser, PredictorConfig)


def _score(options: argparse.Namespace) -> int:
    from atlas_ray.config import build_settings, given
    from atlas_ray.predictors import PredictorConfig
    from atlas_ray.reports.terminal import print_score
    from atlas_ray.scoring.config import ScoreConfig
    from atlas_ray.scoring.run import score
    from atlas_ray.session import connect

    predictor = build_settings(PredictorConfig, given(options, PredictorConfig), COMMAND_LINE)
    config = replace(build_settings(ScoreConfig, given(options, ScoreConfig), COMMAND_LINE), predictor=predictor)
    connect()
    report = score(config)
    print_score(report)
    if report.quarantined_fraction > config.max_quarantine_fraction:
        found, limit = report.quarantined_fraction, config.max_quarantine_fraction
        print(f"atlas-ray score: {found:.1%} of the pictures are in quarantine, over {limit:.1%}", file=sys.stderr)
        return EXIT_QUARANTINE
    return EXIT_OK


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", dest="scored", required=True, help="the output of `atlas-ray score`")
    parser.add_argument("--output", help="where evaluation/ goes; the run itself by default")


def _evaluate(options: argparse.Namespace) -> int:
    from atlas_ray import storage
    from atlas_ray.reports.evaluation import evaluate
    from atlas_ray.reports.terminal import print_evaluation

    metrics = evaluate(options.scored, options.output)
    print_evaluation(metrics, storage.join(options.output or options.scored, "evaluation"))
    return EXIT_OK


def _demo(options: argparse.Namespace) -> int:
    """Run the commands that a user would run, on a catalogue drawn here."""
    from atlas_ray import storage
    from atlas_ray.catalog.sample import draw_catalog
    from atlas_ray.errors import OutputError

    root = storage.absolute(options.output)
    marker = storage.join(root, "made-by-atlas-ray-demo")
    if storage.exists(root) and next(storage.walk(root), None) and not storage.exists(marker):
        raise OutputError(f"{root} holds something else than a demo; name another folder with --output")
    shop, catalog, model, run = (storage.join(root, name) for name in ("shop", "catalog", "model", "run"))
    for folder in (shop, catalog, model, run):
        storage.delete_folder(folder)  # of an earlier demo
    storage.write_bytes(marker, b"")
    print(f"drawing a sample catalogue in {shop}")
    source = draw_catalog(shop)
    columns = [
        "--map",
        "product_id=id",
        "--map",
        "image_uris=image",
        "--map",
        "category_path=category",
    ]
    taxonomy = storage.join(shop, "taxonomy.csv")
    small = ["--backbone", "resnet18", "--image-size-px", "64", "--hidden-dim", "128", "--augment"]
    rates = [
        "--encoder-lr",
        "1e-3",
        "--decoder-lr",
        "1e-3",
        "--schedule",
        "one-cycle",
        "--weight-decay",
        "0.05",
    ]
    steps = (
        ["import", source, "--output", catalog, "--taxonomy", taxonomy, *columns],
        ["train", "encoder-decoder", "--catalog", catalog, "--output", model, "--epochs", "14",
         "--batch-size", "32", *small, *rates],
        ["score", "--catalog", catalog, "--model", model, "--output", run],
        ["evaluate", "--run", run],
    )  # fmt: skip
    for step in steps:
        print(f"\n$ atlas-ray {shlex.join(step)}", flush=True)
        code = main(step)
        if code != EXIT_OK:
            return code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
