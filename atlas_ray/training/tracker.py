"""Trackers of a running training: TensorBoard event files and MLflow."""

import os
import tempfile
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from atlas_ray.errors import ConfigError
from atlas_ray.io import storage
from atlas_ray.training.settings import TrainConfig

EVENTS = "tensorboard"
MLFLOW_URI = "MLFLOW_TRACKING_URI"


def mlflow_environment() -> dict[str, str]:
    """Return the environment variables that MLflow's client reads; {} if MLFLOW_TRACKING_URI is not set.

    Raises:
        ConfigError: if it is set and MLflow is not installed.
    """
    if not os.environ.get(MLFLOW_URI):
        return {}
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"{MLFLOW_URI} is set, but MLflow is not installed; pip install 'atlas-ray[mlflow]', or unset it"
        ) from None
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}


class Tracker:
    """A writer of a run's metrics, in the first worker."""

    def __init__(self, config: TrainConfig, environment: dict[str, str]) -> None:
        """Open the event file, and a run of MLflow if there is an environment for it.

        Args:
            config: The run's settings, which become MLflow's parameters.
            environment: The result of `mlflow_environment` on the driver.
        """
        self._output = storage.join(config.output, EVENTS)
        self._folder = tempfile.TemporaryDirectory(prefix="atlas-ray-events-")
        self._writer = SummaryWriter(self._folder.name)
        self._mlflow: Any = None
        if environment:
            import mlflow

            os.environ.update(environment)
            mlflow.set_tracking_uri(environment[MLFLOW_URI])
            mlflow.start_run(run_name=config.output.rstrip("/").rpartition("/")[2])
            mlflow.log_params({name: str(value)[:500] for name, value in config.to_dict().items()})
            self._mlflow = mlflow

    def step(self, step: int, values: dict[str, float]) -> None:
        """Write values of a step."""
        self._write("train", step, values)

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Write the metrics of an epoch, and copy the event file to the output."""
        self._write("epoch", metrics["step"], {name: float(value) for name, value in metrics.items()})
        self._writer.flush()
        self._publish()

    def _publish(self) -> None:
        for file in Path(self._folder.name).iterdir():
            storage.write_bytes(storage.join(self._output, file.name), file.read_bytes())

    def close(self) -> None:
        """Close the event file and MLflow's run."""
        self._writer.close()
        self._publish()  # the writer's thread may only now have written the last values
        if self._mlflow is not None:
            self._mlflow.end_run()
        self._folder.cleanup()

    def _write(self, group: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
        if self._mlflow is not None:
            self._mlflow.log_metrics({f"{group}_{name}": value for name, value in values.items()}, step=step)
