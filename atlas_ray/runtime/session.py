"""The connection to Ray: to a cluster, or to a local Ray that is started."""

import atexit
import contextlib
import logging
import os
import secrets
import sys
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import ray
import ray.data  # its import sets up its log, so it must come before the log's level is set
from ray.data._internal.execution.backpressure_policy import ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY

from atlas_ray.errors import ClusterError, reason_of, tell
from atlas_ray.io.stores import is_object
from atlas_ray.runtime.backpressure import POLICIES
from atlas_ray.runtime.block_stats import ForgetBlockStats
from atlas_ray.runtime.room import MakeRoom
from atlas_ray.runtime.stops import kept_handlers

MALLOC_ENV = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}
"""Environment variables that make glibc keep memory that a batch has freed for the next one. Otherwise a process with
a model on a CPU returns it to the system and gets it back by page faults, which cost a tenth of the time."""
CPUS = max(os.cpu_count() or 1, 4)
"""Number of CPUs of a local Ray; with fewer than four, stages of a stream wait for each other."""
STARTS = 4
"""How many processes of a stage in a row may fail to start before that ends a run."""
LOCAL = {
    # By default a training polls its workers every two seconds, and a short epoch waits for that.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # this machine is not preempted
    # By default idle processes beyond one for each CPU end after a second, and the next stage starts others.
    "RAY_num_workers_soft_limit": str(2 * CPUS),
    # By default it is one for each core, and on few cores Ray warns about as many processes as a stream has stages.
    "RAY_worker_maximum_startup_concurrency": str(2 * CPUS),
}
"""Settings of a local Ray; variables of the environment take precedence."""
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
CORE_LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
TOO_SLOW = "timed out during startup"
"""What Ray says where its processes were not ready within 30 seconds, which on a busy machine they may not be."""
MAX_FOLDER_BYTES = 107 - len("/session_2026-11-29_14-41-43_761249_1234567/sockets/plasma_store.1")
"""The longest path of Ray's folder, because the system allows 107 bytes for the path of a socket in it."""


def connect() -> None:
    """Connect to the cluster of `RAY_ADDRESS`, or start a Ray on this machine.

    Calling it again does nothing. Ray's progress bars and logs are turned off, because the jobs show their own
    progress. Warnings and errors are still shown.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the environment variable is only read at the import
    context.use_datasource_v2 = False  # it starts actors that read the footers of files, which these streams know
    # By default nothing begins before all processes of a pool have: one for which the cluster has no room, as where a
    # machine has left, would hold up the others for ten minutes, and then end the run.
    context.wait_for_min_actors_s = -1
    # By default the first process that dies while it loads its model, as on a machine that is short of memory, ends the
    # run.
    context.max_consecutive_actor_init_deaths = STARTS - 1
    context.custom_execution_callback_classes = [ForgetBlockStats, MakeRoom]
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, POLICIES)
    # Otherwise a moment without work would end a process, and its model would be loaded again.
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1
    if ray.is_initialized():
        return
    # By default Ray reports usage statistics to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of a failed call that nobody waits for, such as a report of progress to an actor that was killed, it prints the
    # traceback.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    address = os.environ.get("RAY_ADDRESS")
    # Ray's own handler of SIGTERM ends the process at once.
    with warnings.catch_warnings(), kept_handlers(), _quiet_core():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            if address:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                _start()
        except Exception as error:  # of a start that takes too long, Ray raises a plain one
            if reason_of(error):  # a full disk
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if address:
                raise ClusterError(f"RAY_ADDRESS is {address!r}, and no Ray answers there: {reason}") from error
            raise ClusterError(
                f"no Ray could be started on this machine, with its files in {_folder()}: {reason}"
            ) from error
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it logs the traceback of errors that it raises


def warn_of_local_paths(*uris: str) -> None:
    """Print a line if the cluster has several machines and one of the URIs is a path, which each takes for its own."""
    machines = {node.get("NodeManagerHostname") for node in ray.nodes() if node["Alive"]}
    local = [uri for uri in uris if uri and not is_object(uri)]
    if local and len(machines) > 1:
        tell(
            f"{local[0]} is a local path, and the cluster has {len(machines)} machines: it has to be one folder that "
            "all of them share, such as a network file system; otherwise use an object store"
        )


@contextlib.contextmanager
def _quiet_core() -> Iterator[None]:
    """Let Ray's core in this process print what is fatal alone; Ray's own processes keep their logs as they are.

    It writes errors to the terminal, and calls advice to its makers one: that a stage's arguments lie in the object
    store. What goes wrong with a task is raised as an exception.
    """
    connect_core: Any = ray._private.worker.connect

    def connect_quietly(*args: Any, **named: Any) -> None:
        # It prints that it has read its level.
        with mock.patch.dict(os.environ, {CORE_LOG_LEVEL: "fatal"}), _no_stderr():
            connect_core(*args, **named)

    if CORE_LOG_LEVEL in os.environ or sys.stderr is None:  # None where it is closed
        yield
        return
    with mock.patch.object(ray._private.worker, "connect", connect_quietly):
        yield


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what any code of this process, Python or not, prints on stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _start() -> None:
    if not any(name in os.environ for name in AUTHENTICATION):
        # Otherwise Ray would use the token of ~/.ray, or write one there.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for name, value in LOCAL.items():
        os.environ.setdefault(name, value)
    for again in (True, False):
        try:
            ray.init(
                address="local",  # not another Ray that runs on this machine
                num_cpus=CPUS,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=_folder(),
            )
            break
        except Exception as error:
            if not again or TOO_SLOW not in str(error):
                raise
    # Ray shuts down by itself, but first waits half a second for logs, which are not shown here.
    atexit.register(_end)


def _end() -> None:
    hush()
    ray.shutdown()


def hush() -> None:
    """Stop printing Ray's messages about its processes, which are about to be ended: it would call that failures."""
    worker: Any = ray._private.worker.global_worker
    if worker.connected:
        worker.threads_stopped.set()
        worker.gcs_error_subscriber.close()


def _folder() -> str:
    """Return the folder of a local Ray's sockets and logs; the usual one unless its path is too long."""
    folder = os.path.join(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")
    return folder if len(os.fsencode(folder)) <= MAX_FOLDER_BYTES else "/tmp/ray"
