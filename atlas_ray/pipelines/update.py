"""The update of a catalogue: new rows imported, their pictures fetched, what changed scored, and what moved told.

`update.json` in the folder of the new run says what an update is made of, from before its import begins, and what came
of it once all is done. So the same command goes on with the step that was stopped.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from atlas_ray.artifacts import load_artifact
from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog, open_source
from atlas_ray.catalog.preview import preview
from atlas_ray.catalog.sources import locate
from atlas_ray.catalog.versions import next_version
from atlas_ray.errors import CatalogError, ConfigError, TaxonomyError, tell
from atlas_ray.evaluation.comparison import compare
from atlas_ray.evaluation.label_comparison import compare_labels
from atlas_ray.fetching.run import FetchConfig, fetch
from atlas_ray.formats.tables import current
from atlas_ray.io import storage
from atlas_ray.io.lease import await_named_stores, hold
from atlas_ray.reports.comparison import write_comparison_page
from atlas_ray.runs.run_record import RunReport, read_run
from atlas_ray.runs.scored import open_scored
from atlas_ray.runtime.settings import StreamConfig
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig

UPDATE = "update.json"
COMPARISON = "comparison"
"""The folder in the new run that holds its comparison with the earlier one."""
MOVES = 10
"""The most moves that `update.json` names."""
HOW_ONLY = {"output", "catalog", "previous", "trust", "decode_stage", *(field.name for field in fields(StreamConfig))}
"""Settings of scoring that no answer depends on, or that the update itself gives."""
StageReport: TypeAlias = ImportReport | RunReport


@dataclass(frozen=True, kw_only=True)
class UpdateConfig:
    """What comes in, how it is scored, and where the runs are."""

    source: ImportConfig
    """The new rows; its output is the catalogue that they update."""
    score: ScoreConfig
    """How products are scored; its catalogue, its output and its earlier run are the update's to name."""
    runs: str
    """The folder of the runs; each has a numbered folder in it."""
    fetch: FetchConfig | None = None
    """How pictures with web addresses are downloaded, and where to; None if none are."""


@dataclass(frozen=True)
class Updated:
    """What an update ended with."""

    account: Mapping[str, Any]
    """The content of `update.json`."""
    scored: RunReport
    fetched: RunReport | None
    refused_fraction: float
    """The share of the source's rows that the import quarantined."""
    already_done: bool = False


def update(config: UpdateConfig, on_stage: Callable[[StageReport], None] = lambda _: None) -> Updated:
    """Import what is new, and score what that changed.

    After a stop the same call goes on where it was: with the import, the fetch, the scoring or the comparison.

    Args:
        config: The settings.
        on_stage: Called with the report of each stage as it ends.

    Raises:
        ConfigError: if the source's pictures have web addresses, and nothing says where to download them to.
        OutputError: if there is no catalogue, or the run that was begun has other settings.
        UserError: as the import, the fetch and the scoring do.
    """
    await_named_stores([config.source, config.score, config.runs])
    catalog, runs = storage.absolute(config.source.output), storage.absolute(config.runs)
    with hold(runs, "update"):
        with hold(catalog, "update"):
            account = _open(config, catalog, runs)
            if "finished_at" in account:
                return _updated(account, already_done=True)
            if current(catalog) != account["version"]:
                on_stage(_import(config))
            if config.fetch is not None and account["pictures_in"] is None:
                fetched = fetch(replace(config.fetch, catalog=catalog))
                on_stage(fetched)
                account["pictures_in"] = fetched.output
                _write(account)
        scoring = replace(
            config.score,
            catalog=account["pictures_in"] or account["version"],
            output=account["run"],
            previous=account["previous"],
        )
        on_stage(score(scoring))
        if account["previous"]:
            account |= _compare(account["previous"], account["run"])
        account["finished_at"] = datetime.now(UTC).isoformat()
        _write(account)
        return _updated(account)


def _open(config: UpdateConfig, catalog: str, runs: str) -> dict[str, Any]:
    """Return the account of the update that is to be gone on with, or begin another one."""
    artifact = load_artifact(config.score.model, target=None)  # refused before anything is written
    following, now = next_version(catalog), current(catalog)
    how = {name: value for name, value in asdict(config.score).items() if name not in HOW_ONLY}
    wanted: dict[str, Any] = {
        "catalog": catalog,
        "source": locate(config.source.source, config.source.format),
        "source_id": source_id(config.source),
        "import": asdict(replace(config.source, output=catalog)),
        "fetch": config.fetch and storage.absolute(config.fetch.output),
        "score": {**how, "model_id": artifact.id},
    }
    wanted = json.loads(json.dumps(wanted))
    number = max(
        (int(name) for uri in storage.folders(runs) if (name := uri.rpartition("/")[2]).isdecimal()), default=0
    )
    account = _read(storage.join(runs, f"{number:05d}"))
    same = wanted["source_id"] and all(account.get(name) == wanted[name] for name in wanted if name != "score")
    if same and account["version"] == now:
        # A finished one is asked for again with another model, or for failures that may have passed.
        again = account["score"] != wanted["score"] or config.score.retry_failed
        if "finished_at" not in account or not again:
            return account
    begun = storage.files(storage.join(runs, f"{number:05d}"))
    if account and begun == [storage.join(runs, f"{number:05d}", UPDATE)]:
        number -= 1  # that one was stopped before it came to scoring: this one takes its place
    account = {
        **wanted,
        "version": following,
        "run": storage.join(runs, f"{number + 1:05d}"),
        "previous": newest_run(runs),
        "pictures_in": None,
        "compared": None,
        "uncompared": None,
        "moves": [],
        "started_at": datetime.now(UTC).isoformat(),
    }
    _check_pictures(config)
    _write(account)
    return account


def _check_pictures(config: UpdateConfig) -> None:
    """Look at some pictures of the source.

    Raises:
        ConfigError: if they have web addresses, which scoring does not read.
    """
    first = preview(open_source(config.source))
    if first.warning:
        tell(first.warning)
    if first.addresses and config.fetch is None:
        raise ConfigError(
            f"{first.source}: {first.addresses} of the first pictures have web addresses, which scoring does not read; "
            "add --fetch FOLDER to download them there: each once, and next time those that are new"
        )


def _import(config: UpdateConfig) -> ImportReport:
    return import_catalog(replace(config.source, update=True))


def _compare(previous: str, run: str) -> dict[str, Any]:
    """Compare a run with the earlier one; return what the account says of it."""
    output = storage.join(run, COMPARISON)
    before, after = (open_scored(uri, target=None).target for uri in (previous, run))
    if before != after:
        return {"uncompared": "one run answers with labels, the other with category paths"}
    try:
        if after == "labels":
            compared = compare_labels(previous, run, output)
            changes = storage.read_table(storage.join(output, "labels.parquet"), ["label", "gained", "lost"])
            moves = [row for row in changes.slice(0, MOVES).to_pylist() if row["gained"] or row["lost"]]
            return {"compared": compared["products"], "moves": moves}
        compared = compare(previous, run, output)
    except TaxonomyError as error:  # the labels are of another taxonomy, which scoring was told to go without
        return {"uncompared": str(error)}
    write_comparison_page(output)
    pairs = storage.read_table(storage.join(output, "moves.parquet"), ["from", "to", "products"])
    return {"compared": compared["products"], "moves": pairs.slice(0, MOVES).to_pylist()}


def _read(run: str) -> dict[str, Any]:
    """Read what an update says of itself; {} if there is none.

    Raises:
        CatalogError: if it is damaged.
    """
    uri = storage.join(run, UPDATE)
    if not storage.exists(uri):
        return {}
    try:
        account = json.loads(storage.read_bytes(uri))
        return dict(account)
    except (ValueError, TypeError) as error:
        raise CatalogError(f"{uri} is damaged ({error}); delete it, and the update begins anew") from None


def _write(account: Mapping[str, Any]) -> None:
    text = json.dumps(account, indent=1, ensure_ascii=False)
    storage.write_bytes(storage.join(account["run"], UPDATE), text.encode("utf-8", "backslashreplace"))


def _updated(account: dict[str, Any], *, already_done: bool = False) -> Updated:
    """Add the figures that the runs themselves hold."""
    imported, scored = (read_run(account[name]) or {} for name in ("version", "run"))
    rows = imported["counts"]
    fetched = read_run(account["pictures_in"]) if account["pictures_in"] else None
    return Updated(
        {**account, "products": rows["changes"]},
        RunReport(account["run"], scored),
        RunReport(account["pictures_in"], fetched) if fetched else None,
        sum(rows["quarantined"].values()) / max(rows["records"] - rows["blank"], 1),
        already_done,
    )


def newest_run(runs: str) -> str | None:
    """Return the finished scoring run in a folder of runs that ended last; None if there is none."""
    finished = [(run.get("finished_at", ""), uri) for uri in storage.folders(runs) if (run := _scored(uri))]
    return max(finished)[1] if finished else None


def _scored(uri: str) -> dict[str, Any] | None:
    run = read_run(uri)
    return run if run and run.get("job") == "score" else None


def source_id(config: ImportConfig) -> str | None:
    """Return a text that changes with a source: of its files' names and sizes, and the time of its last change.

    None for a source that has none of them, such as a table in a catalogue of tables.
    """
    uri = locate(config.source, config.format)
    place = None if "://" not in uri and not uri.startswith("/") else storage.locate(uri)
    if place is None or not storage.exists(uri):
        return None
    info = place.filesystem.get_file_info(place.path)
    digest = hashlib.sha256(f"{info.size} {info.mtime_ns}".encode())
    if storage.is_folder(uri):
        for name, size in storage.walk(uri):
            digest.update(f"{name} {size}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
