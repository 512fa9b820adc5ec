"""A running endpoint: `atlas-ray serve` as a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.inputs import free_port

START_S = 120


@dataclass
class Endpoint:
    """Where an endpoint is, and its process."""

    url: str
    process: "subprocess.Popen[str]"
    log: Path

    def stop(self) -> int:
        """Ask it to end, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


@contextmanager
def endpoint(*flags: str) -> Iterator[Endpoint]:
    """Start `atlas-ray serve` on a Ray of its own, and end it."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "atlas_ray", "serve", f"--port={port}", *flags]
    with tempfile.TemporaryDirectory(prefix="atlas-ray-serve-") as folder:
        log = Path(folder) / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment)
        watchdog = threading.Timer(START_S, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("serving at "):
                    break
            else:
                raise RuntimeError(f"no endpoint: {said[-20:]} {log.read_text()[-2000:]}")
            watchdog.cancel()
            yield Endpoint(line.split()[2].rstrip(";"), process, log)
        finally:
            watchdog.cancel()
            if process.poll() is None:
                process.terminate()
                process.wait(90)
