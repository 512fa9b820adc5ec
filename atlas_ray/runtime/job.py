"""The life of a job: it claims its output, pins its settings, resumes after a stop, accounts for all, and cleans up."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Self

import ray.data
from ray.data import DataContext

from atlas_ray.errors import OutputError
from atlas_ray.io import storage
from atlas_ray.io.lease import await_named_stores, hold
from atlas_ray.runs.run_record import PUBLISHED, RUN, RunReport, quarantine_codes, read_run, timings, write_run
from atlas_ray.runtime.checkpoint import checkpointed, close, committed_ids, recover, reopen, rows_done
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect, warn_of_local_paths
from atlas_ray.runtime.settings import file_rows
from atlas_ray.runtime.sink import OutcomeSink, Split
from atlas_ray.runtime.tables import Catalog
from atlas_ray.settings import pin_settings

FOREIGN = ("model.json", "taxonomy.json", "products", "images", "predictions")
"""Names in the folders of models, catalogues and scoring runs. A job does not write there unless it makes them."""


@dataclass
class Job:
    """A run of a command over an output, which it owns inside the `with` block."""

    verb: str
    """The command."""
    config: Any
    """The settings, a dataclass with `output`."""
    _: KW_ONLY
    below: str = ""
    """The folder inside the output that the job writes to; "" for the output itself."""
    makes: Sequence[str] = ()
    """Names that it writes there, besides the folders of its stream."""
    streams: Sequence[str] = ()
    """Folders that only its stream writes to."""
    scratch: Sequence[str] = ()
    """Those of them that are not read after the run."""
    began: float = field(default_factory=time.time)
    identity: Mapping[str, Any] = field(default_factory=dict)
    """The inputs and settings that make the run's result, once they are pinned."""
    resumed_from: int = 0
    """Number of pictures that earlier tries of the run did."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each part of the run, by name; the total is added at the end. Of a stream, `plan` ends with the first
    picture that is read."""

    def __post_init__(self) -> None:
        """Find the folder that the job writes to."""
        root = storage.absolute(self.config.output)
        self.output = storage.join(root, self.below) if self.below else root
        self._lease = hold(root, self.verb)
        self._name = self.verb.rpartition(" ")[2]
        self._settings = f"{self._name}.json"

    def __enter__(self) -> Self:
        await_named_stores([self.config])
        self._lease.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lease.__exit__(*error)

    def pinned(self) -> dict[str, Any]:
        """Return the identity of the run that the output holds; {} if it holds none, or one that cannot be read."""
        uri = storage.join(self.output, self._settings)
        try:
            pinned = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else {}
        except ValueError:  # which `check` says
            pinned = {}
        return pinned if isinstance(pinned, dict) else {}

    def check(self, identity: Mapping[str, Any]) -> None:
        """Check that the output may hold a run of an identity; nothing is written.

        Raises:
            OutputError: naming the first difference, or the name in the output that is not this job's.
        """
        for name in FOREIGN:
            if name not in {*self.makes, *self.streams} and storage.exists(storage.join(self.output, name)):
                raise OutputError(
                    f"{self.output} holds a model or a catalogue ({name}); {self._name} into a folder of its own"
                )
        for name, what in (("catalog", "catalogue"), ("run", "run"), ("previous", "earlier run")):
            if identity.get(name) == self.output:
                raise OutputError(f"{self.output} is the {what} itself; {self._name} into a folder of its own")
        if not storage.exists(storage.join(self.output, self._settings)):
            for name in (RUN, *self.streams, *self.makes):
                if storage.exists(storage.join(self.output, name)):
                    raise OutputError(f"{self.output} holds {name} of another origin; {self._name} into a new folder")
        else:
            pin_settings(self.output, self._settings, identity)

    def pin(self, identity: Mapping[str, Any]) -> None:
        """Write the run's identity beside its output, or check that the output holds a run of the same identity.

        Raises:
            OutputError: as `check` does.
        """
        self.check(identity)
        pin_settings(self.output, self._settings, identity)
        self.identity = identity

    def done(self, whole: int) -> int:
        """Return how many of the pictures earlier tries of the run have done; nothing is written."""
        return whole if read_run(self.output) is not None else rows_done(self.output)

    def finished(self, is_current: Callable[[dict[str, Any]], bool] = lambda _: True) -> RunReport | None:
        """Return the report of a finished run; put any other run into the state of its last commit.

        With `retry_failed` in the settings, a run with pictures to retry is not finished.

        Args:
            is_current: A function of the content of `run.json` that tells whether it still holds; otherwise the file
                is deleted.
        """
        published = storage.join(self.output, PUBLISHED)
        if self.streams and self.config.retry_failed and storage.exists(published):
            raise OutputError(
                f"{self.output} is published: a table refers to its files ({published}), which --retry-failed would "
                f"replace; score into a new folder with --previous {self.output}, which asks for them again"
            )
        if self.streams:
            run = reopen(self.output, self.streams, retry_failed=self.config.retry_failed)
        else:
            run = read_run(self.output)
        if run is not None and is_current(run):
            return RunReport(self.output, run, already_done=True)
        storage.delete_file(storage.join(self.output, RUN))
        return None

    def stream(
        self, title: str, total: int, stages: Callable[[Any], ray.data.Dataset], *, split: Split, rows_per_file: int
    ) -> None:
        """Run a stream of pictures to its end; pictures that an earlier try committed are skipped.

        Args:
            title: What the stream does, for the display.
            total: The number of pictures.
            stages: A function of the `ProgressActor` that makes the stream, without its sink.
            split: As in `OutcomeSink`, with the folders of `streams`.
            rows_per_file: As in `file_rows`.
        """
        connect()
        warn_of_local_paths(self.output, getattr(self.config, "catalog", ""))
        done = committed_ids(self.output)
        self.resumed_from = done.count if done else 0
        with ProgressDisplay(title, "pictures", total=total, done=self.resumed_from) as display:
            if self.resumed_from < total:
                for folder in self.streams:
                    storage.make_folder(storage.join(self.output, folder))
                with DataContext.current(checkpointed(self.output, done)):
                    rows = file_rows(rows_per_file, total)
                    sink = OutcomeSink(self.output, display.actor, split=split, rows_per_file=rows)
                    stages(display.actor).write_datasink(sink)
            spans = display.spans()
        self.seconds |= {"stream": time.time() - self.began, **timings(spans)}
        if "fetch" in spans:
            self.seconds["plan"] = spans["fetch"][0] - self.began
        recover(self.output, self.streams)  # files that no commit names must not be counted

    def account(self, catalog: Catalog, counts: Mapping[str, int], *, stage: str = "read") -> dict[str, Any]:
        """Return the fields of `run.json` about a catalogue's pictures; write rows without a key to the quarantine.

        Args:
            catalog: The catalogue that was read.
            counts: Numbers of pictures by outcome, with `input` and `quarantined`.
            stage: The stage of the quarantine's rows without a key.
        """
        started = time.time()
        unusable = catalog.write_unusable(self.output, stage)
        fields = {
            "counts": {**counts, **{name: counts[name] + unusable for name in ("input", "quarantined")}},
            "unreadable_values": catalog.account(),
            "quarantined_by_code": quarantine_codes(self.output),
            "resumed_from": self.resumed_from,
        }
        self.seconds["account"] = time.time() - started
        return fields

    def finish(self, fields: Mapping[str, Any]) -> RunReport:
        """Write `run.json`, which completes the run, and delete what it no longer needs."""
        account = {"config": asdict(self.config), "identity": self.identity, **fields}
        account["seconds"] = {"total": time.time() - self.began, **self.seconds}
        run = write_run(self.output, self._name, self.began, account)
        close(self.output, self.scratch, run)
        forget_inputs(self.output)
        return RunReport(self.output, run)
