"""`update`: a catalogue's new rows taken in, and what they changed scored."""

import argparse

from atlas_ray.cli.command import EXIT_OK, quarantine_exit, run_exit
from atlas_ray.cli.import_ import column_flags, named_columns
from atlas_ray.settings import COMMAND_LINE, add_flags, build_settings, flags_given

NOT_OF_FETCH = (
    "catalog", "output", "workers", "timeout_s", "retry_failed", "rows_per_file", "min_side_px",
    "max_quarantine_fraction",
)  # fmt: skip
"""Settings of a fetch that the update gives, or that are flags of scoring, too."""
NOT_OF_IMPORT = ("source", "output", "update", "split", "seed", "split_exact", "max_quarantine_fraction")
"""Settings of an import that the update or the catalogue gives, or that are flags of scoring, too."""


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `update`."""
    from atlas_ray.catalog.importer import ImportConfig
    from atlas_ray.fetching.run import FetchConfig
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.scoring.settings import ScoreConfig

    parser.add_argument("--from", dest="source", required=True, help="new rows: a file, folder or table; see --format")
    parser.add_argument("--catalog", required=True, help="catalogue that they update")
    parser.add_argument("--runs", required=True, help="folder of the scoring runs; each update adds one")
    parser.add_argument("--fetch", metavar="FOLDER", help="folder that pictures with web addresses are downloaded to")
    column_flags(parser)
    add_flags(parser, ImportConfig, skip=NOT_OF_IMPORT)
    add_flags(parser, ScoreConfig, skip=("catalog", "output", "previous", "embeddings"))
    add_flags(parser, PredictorConfig)
    add_flags(parser, FetchConfig, skip=NOT_OF_FETCH)


def run(options: argparse.Namespace) -> int:
    """Take new rows into a catalogue, and score what they changed."""
    from dataclasses import replace

    from atlas_ray.catalog.importer import ImportConfig, ImportReport
    from atlas_ray.fetching.run import FetchConfig
    from atlas_ray.pipelines.update import StageReport, UpdateConfig, update
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.reports.collection import print_fetch
    from atlas_ray.reports.terminal import print_import, print_score
    from atlas_ray.reports.update import print_update
    from atlas_ray.scoring.settings import ScoreConfig

    places = {"catalog": options.catalog, "output": options.runs}
    scoring = build_settings(ScoreConfig, {**flags_given(options, ScoreConfig), **places}, COMMAND_LINE)
    predictor = build_settings(PredictorConfig, flags_given(options, PredictorConfig), COMMAND_LINE)
    limit = scoring.max_quarantine_fraction
    fetching = None
    if options.fetch:
        own = {name: value for name, value in flags_given(options, FetchConfig).items() if name not in NOT_OF_FETCH}
        shared = {"retry_failed": scoring.retry_failed, "min_side_px": predictor.min_side_px}
        fetching = build_settings(FetchConfig, {**own, **shared, **places, "output": options.fetch}, COMMAND_LINE)
    importing = {**flags_given(options, ImportConfig), "output": options.catalog, "update": True}
    source = replace(build_settings(ImportConfig, importing, COMMAND_LINE), **named_columns(options))

    def show(report: StageReport) -> None:
        if isinstance(report, ImportReport):
            print_import(report)
        elif report.run["job"] == "fetch":
            print_fetch(report.output, report.run)
        else:
            print_score(report)

    config = UpdateConfig(source=source, score=replace(scoring, predictor=predictor), runs=options.runs, fetch=fetching)
    done = update(config, show)
    print_update(done)
    codes = [quarantine_exit("update", done.refused_fraction, limit, what="rows")]
    codes += [run_exit("update", report, limit) for report in (done.fetched, done.scored) if report is not None]
    return next((code for code in codes if code), EXIT_OK)
