"""The life of a job: its output claimed, its settings pinned, gone on with after a stop, accounted for, cleaned up."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Self

import ray.data
from ray.data import DataContext

from atlas_ray.errors import OutputError
from atlas_ray.io import storage
from atlas_ray.io.lease import await_named_stores, hold
from atlas_ray.runs.run_record import RUN, RunReport, quarantine_codes, read_run, timings, write_run
from atlas_ray.runtime.checkpoint import checkpointed, close, recover, reopen, rows_done
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.sink import OutcomeSink, Split
from atlas_ray.runtime.tables import Catalog
from atlas_ray.settings import pin_settings

FOREIGN = ("model.json", "taxonomy.json", "products", "images", "predictions")
"""What models, catalogues and scoring runs have, and a job writes beside only where it makes such a thing itself."""


@dataclass
class Job:
    """One run of a verb over an output, which it owns while its `with` block runs."""

    verb: str
    """What runs: a command."""
    config: Any
    """The settings, a dataclass with `output`."""
    _: KW_ONLY
    below: str = ""
    """The folder of the output that the job writes to, where that is not all of it."""
    makes: Sequence[str] = ()
    """What it writes there, beside what its stream does."""
    streams: Sequence[str] = ()
    """The folders that its stream writes outcomes to, and nobody else."""
    scratch: Sequence[str] = ()
    """Those of them that nobody reads when the run is finished."""
    began: float = field(default_factory=time.time)
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What the run is made of, once it is pinned."""
    resumed_from: int = 0
    """Pictures that earlier tries of the run did."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What took how long, by name; the whole is added at the end."""

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

    def pin(self, identity: Mapping[str, Any]) -> None:
        """Keep what the run is made of beside its output, or check that the output holds a run made of the same.

        Raises:
            OutputError: naming the first difference, or what the output holds that is none of this job's.
        """
        own = {*self.makes, *self.streams}
        for name in FOREIGN:
            if name not in own and storage.exists(storage.join(self.output, name)):
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
        pin_settings(self.output, self._settings, identity)
        self.identity = identity

    def finished(self, is_current: Callable[[dict[str, Any]], bool] = lambda _: True) -> RunReport | None:
        """Return the report of a run that is finished; any other one is put into the state of its last commit.

        With `retry_failed` in the settings, a run whose stream could have more now is not finished any more.

        Args:
            is_current: Whether the account of a finished run is of what there is now; where it is not, it is deleted.
        """
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
        """Run a stream of pictures to its end; what an earlier try committed is left out.

        Args:
            title: What it does.
            total: How many pictures there are.
            stages: Makes it, without its sink; takes the actor that shows progress.
            split: As in `OutcomeSink`, with the folders of `streams`.
            rows_per_file: Likewise.
        """
        connect()
        self.resumed_from = rows_done(self.output)
        with ProgressDisplay(title, "pictures", total=total, done=self.resumed_from) as display:
            if self.resumed_from < total:
                for folder in self.streams:
                    storage.make_folder(storage.join(self.output, folder))
                with DataContext.current(checkpointed(self.output)):
                    sink = OutcomeSink(self.output, display.board, split=split, rows_per_file=rows_per_file)
                    stages(display.board).write_datasink(sink)
            self.seconds |= {"stream": time.time() - self.began, **timings(display.spans())}
        recover(self.output, self.streams)  # what no commit names is none of the outcomes that are counted now

    def account(self, catalog: Catalog, counts: Mapping[str, int], *, stage: str = "read") -> dict[str, Any]:
        """Return what a run says of the pictures of a catalogue; rows without a key go to the quarantine.

        Args:
            catalog: What was read.
            counts: The pictures that were, with `input` and `quarantined`.
            stage: What the quarantine says of the rows without a key.
        """
        unusable = catalog.write_unusable(self.output, stage)
        return {
            "counts": {**counts, **{name: counts[name] + unusable for name in ("input", "quarantined")}},
            "unreadable_values": catalog.account(),
            "quarantined_by_code": quarantine_codes(self.output),
            "resumed_from": self.resumed_from,
        }

    def finish(self, fields: Mapping[str, Any]) -> RunReport:
        """Write `run.json`, which completes the run, and delete what it needs no longer."""
        account = {"config": asdict(self.config), "identity": self.identity, **fields}
        account["seconds"] = {"total": time.time() - self.began, **self.seconds}
        run = write_run(self.output, self._name, self.began, account)
        close(self.output, self.scratch, run)
        forget_inputs(self.output)
        return RunReport(self.output, run)
