"""The connection to Ray: the cluster that is there, or a local one that starts by itself."""

import atexit
import logging
import os
import secrets
import warnings
from typing import Any

import ray
import ray.data  # it sets up its log when it is first imported, so that has to be before it is turned down

from atlas_ray.errors import ClusterError, reason_of
from atlas_ray.runtime.stops import kept_handlers

KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}
"""For glibc in the processes that hold a model: what a batch has freed is kept for the next one. On a CPU it
otherwise goes back to the system and comes again as page faults, which cost a tenth of the time."""
CPUS = max(os.cpu_count() or 1, 4)
"""What a local Ray counts; with fewer than four, stages of a stream wait for each other."""
LOCAL = {
    # A training asks its workers every two seconds what they report, and a short epoch waits for that.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody takes this machine away
    # It ends an idle process beyond one a CPU after a second, and starts another for the next stage.
    "RAY_num_workers_soft_limit": str(2 * CPUS),
    # With one a core it warns, on few cores, of as many processes as a stream has stages.
    "RAY_worker_maximum_startup_concurrency": str(2 * CPUS),
}
"""Ray's settings for a Ray on this machine, where the environment has none."""
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
LONGEST_FOLDER = 107 - len("/session_2026-11-29_14-41-43_761249_1234567/sockets/plasma_store.1")
"""Bytes of the folder that a Ray's sockets are below; the system takes 107 for all of a socket's path."""


def connect() -> None:
    """Connect to the cluster of `RAY_ADDRESS`, or start a Ray on this machine.

    Calling it again starts nothing. Ray's own progress bars and logs are turned down: the jobs say
    themselves what they do. Warnings and errors still come through.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # its variable is read when it is imported
    context.use_datasource_v2 = False  # it starts a pool of actors for footers, which hold no news for our streams
    if ray.is_initialized():
        return
    # Ray reports usage statistics to its makers by default; a catalogue's jobs should not.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    with warnings.catch_warnings(), kept_handlers():  # Ray's own handler of SIGTERM ends the process where it is
        warnings.simplefilter("ignore", FutureWarning)
        try:
            if address:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                _start()
        except (OSError, ValueError, RuntimeError) as error:
            if reason_of(error):  # a full disk
                raise
            reason = str(error).splitlines()[0]
            if address:
                raise ClusterError(f"RAY_ADDRESS is {address!r}, and no Ray answers there: {reason}") from error
            raise ClusterError(
                f"no Ray could be started on this machine, with its files in {_folder()}: {reason}"
            ) from error
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it writes the traceback of what it raises


def _start() -> None:
    if not any(name in os.environ for name in AUTHENTICATION):
        # Ray would take the token of ~/.ray, or write one there; this one ends with the process.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for name, value in LOCAL.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local",  # not a Ray that happens to run on this machine
        num_cpus=CPUS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=_folder(),
    )
    # Ray ends it by itself, but waits half a second before for logs, which are not shown here.
    atexit.register(_end)


def _end() -> None:
    hush()
    ray.shutdown()


def hush() -> None:
    """Show nothing more of what Ray says of its processes: they are about to be ended, which it calls failures."""
    worker: Any = ray._private.worker.global_worker
    if worker.connected:
        worker.threads_stopped.set()
        worker.gcs_error_subscriber.close()


def _folder() -> str:
    """Return where a Ray on this machine keeps its sockets and logs: a path too long for a socket is no such place."""
    folder = os.path.join(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")
    return folder if len(os.fsencode(folder)) <= LONGEST_FOLDER else "/tmp/ray"
