"""`atlas-ray score`, Daft, and Ray Data as its makers publish it, over the same pictures by the same weights.

    python -m benchmarks.peers [--count 2000] [--rounds 5] [--store local|s3] [--compiled openvino-int8]

Each round runs all of them, one after the other, in a process of its own, and takes the whole command and its stream,
from the first picture that is read to the last row that is written. A classifier of random weights answers 224 px
JPEGs; every peer writes the path and the probability of each as Parquet.

- `atlas-ray`: the command, with the flags after `--`; it keeps alternatives, quarantine and account besides.
- `daft`: its own download, decoding and resizing, and the model in a class, in bfloat16 where the machine has it. It is
  installed into an environment of its own, which also sees the packages of this one.
- `ray-published`: the image classification of Ray's multimodal benchmarks: bytes by `download`, a picture decoded and
  transformed a row at a time, the model in an actor, in float32
  (release/nightly_tests/multimodal_inference_benchmarks/image_classification in Ray's repository).
- `ray-tuned`: the same with decoding in the actor, for a batch at once, and bfloat16.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from atlas_ray.artifacts import load_artifact
from atlas_ray.artifacts.saving import save_artifact
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.prediction.device import choose_dtype, name_of_dtype
from atlas_ray.taxonomy import Vocabulary, format_path, read_taxonomy
from benchmarks.engines import add_compiled_flag, compile_into
from tests.support.inputs import pictures, s3_server, write_catalog

SIZE_PX = 150
BATCH = 32
CORES = os.cpu_count() or 1
SUM_TOLERANCE = 0.02
"""By how much the mean probability of two peers may differ: they resize in their own ways."""


class Model:
    """The network that all peers ask."""

    def __init__(self, uri: str, precision: str) -> None:
        artifact = load_artifact(uri)
        torch.set_num_threads(CORES)
        self._network = artifact.model.eval()
        self._paths = [format_path(leaf) for leaf in artifact.taxonomy.leaves]
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32

    def __call__(self, pixels: torch.Tensor) -> tuple[list[str], list[float]]:
        """Answer (batch, 3, size, size) RGB pixels, 0 to 255, with paths and probabilities."""
        with torch.inference_mode(), torch.autocast("cpu", self._dtype, enabled=self._dtype is not torch.float32):
            best = self._network(pixels.float()).float().softmax(1).max(1)
        return [self._paths[leaf] for leaf in best.indices.tolist()], best.values.tolist()


def decoded(content: bytes) -> torch.Tensor:
    """Decode a picture as the published pipelines do: (3, size, size)."""
    image = Image.open(io.BytesIO(content)).convert("RGB").resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(SIZE_PX, SIZE_PX, 3).permute(2, 0, 1)


def run_daft(names: str, model: str, output: str, precision: str) -> float:
    """Answer with Daft; return the seconds of the stream."""
    import daft

    @daft.udf(
        return_dtype=daft.DataType.struct({"path": daft.DataType.string(), "probability": daft.DataType.float64()}),
        concurrency=1,
        batch_size=BATCH,
    )
    class Answer:
        def __init__(self) -> None:
            self._model = Model(model, precision)

        def __call__(self, images: Any) -> list[dict[str, Any]]:
            pixels = torch.stack([torch.as_tensor(image) for image in images.to_pylist()]).permute(0, 3, 1, 2)
            pairs = zip(*self._model(pixels), strict=True)
            return [{"path": path, "probability": probability} for path, probability in pairs]

    began = time.perf_counter()
    config = None
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        config = daft.io.IOConfig(s3=daft.io.S3Config(endpoint_url=endpoint, region_name="us-east-1"))
    frame = daft.read_parquet(names)
    content = frame["image_uri"].download(io_config=config)
    image = content.decode_image(mode="RGB").resize(SIZE_PX, SIZE_PX)
    ask: Any = Answer  # Daft makes a function of columns of it
    frame = frame.with_column("answer", ask(image))
    frame.select("image_uri", frame["answer"]["path"], frame["answer"]["probability"]).write_parquet(output)
    return time.perf_counter() - began


class Published:
    """The actor of Ray's published pipeline."""

    def __init__(self, model: str) -> None:
        self._model = Model(model, "float32")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answer a batch of decoded pictures."""
        paths, probabilities = self._model(torch.from_numpy(batch.pop("image")))
        return {**batch, "path": paths, "probability": probabilities}


class Tuned:
    """The same, which decodes as well."""

    def __init__(self, model: str, precision: str) -> None:
        self._model = Model(model, precision)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answer a batch of the bytes of pictures."""
        paths, probabilities = self._model(torch.stack([decoded(content) for content in batch.pop("bytes")]))
        return {**batch, "path": paths, "probability": probabilities}


def _decode_row(row: dict[str, Any]) -> dict[str, Any]:
    row["image"] = decoded(row.pop("bytes")).float().numpy()
    return row


def _on_ray(names: str, output: str, stages: Callable[[Any], Any]) -> float:
    import ray
    import ray.data
    from pyarrow import fs
    from ray.data.expressions import download

    ray.init(
        num_cpus=max(CORES, 4), include_dashboard=False, log_to_driver=False
    )  # with two, stages wait for each other
    ray.data.DataContext.get_current().enable_progress_bars = False
    began = time.perf_counter()
    store = None
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        store = fs.S3FileSystem(endpoint_override=endpoint, region="us-east-1")
    read = ray.data.read_parquet(names, override_num_blocks=4 * CORES)
    stages(read.with_column("bytes", download("image_uri", filesystem=store))).write_parquet(output)
    return time.perf_counter() - began


def run_published(names: str, model: str, output: str, precision: str) -> float:
    """Answer with Ray's published pipeline; return the seconds of the stream."""
    del precision  # it has none to choose

    def stages(stream: Any) -> Any:
        actor = {"fn_constructor_args": (model,), "batch_size": BATCH, "concurrency": 1}
        return stream.map(_decode_row).map_batches(Published, **actor)

    return _on_ray(names, output, stages)


def run_tuned(names: str, model: str, output: str, precision: str) -> float:
    """Answer with the tuned pipeline; return the seconds of the stream."""

    def stages(stream: Any) -> Any:
        actor = {"fn_constructor_args": (model, precision), "batch_size": BATCH, "concurrency": 1}
        return stream.map_batches(Tuned, **actor)

    return _on_ray(names, output, stages)


PEERS: dict[str, Callable[[str, str, str, str], float]] = {
    "daft": run_daft,
    "ray-published": run_published,
    "ray-tuned": run_tuned,
}
OWN = "atlas-ray"


def python_with_daft(folder: Path) -> str:
    """Make an environment with Daft, unless there is one; return its interpreter."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "daft"], check=True)
        own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        Path(own, "benchmarked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(python)


def measure(name: str, python: str, scratch: str, flags: Sequence[str], precision: str) -> tuple[float, float, float]:
    """Run one of them; return the seconds of the whole command and of the stream, and the mean probability."""
    output = tempfile.mkdtemp(prefix=f"{name}-", dir=scratch)
    model, names = f"{scratch}/model", f"{scratch}/names.parquet"
    if name == OWN:
        command = [sys.executable, "-m", "atlas_ray", "score", "--catalog", f"{scratch}/catalog", "--model", model]
        command += ["--output", f"{output}/run", *flags]
    else:
        command = [python if name == "daft" else sys.executable, "-m", "benchmarks.peers", "--peer", name]
        command += ["--ask", names, model, f"{output}/run", precision]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    table = pq.read_table(f"{output}/run/predictions" if name == OWN else f"{output}/run", columns=["probability"])
    stream = (
        json.loads(Path(output, "run", "run.json").read_text())["seconds"]["first_read_to_last_write"]
        if name == OWN
        else float(done.stdout.splitlines()[-1])
    )
    count = pq.read_table(names).num_rows
    assert len(table) == count, f"{name} answered {len(table)} of {count} pictures"
    return whole, stream, statistics.fmean(table["probability"].to_pylist())


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", choices=("local", "s3"), default="local", help="where the pictures lie")
    add_compiled_flag(parser)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS, help="what to run beside atlas-ray")
    parser.add_argument("--environment", type=Path, help="folder of the environment with Daft; made if it is not there")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("score_flags", nargs="*", help="further flags of `atlas-ray score`, after --")
    return parser.parse_args()


def main() -> None:
    """Run all of them in turn, and print the medians."""
    options = _parsed()
    if options.peer:
        print(PEERS[options.peer](*options.ask))
        return
    precision = name_of_dtype(choose_dtype("auto", torch.device("cpu")))
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in (OWN, *options.peers)}
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch, s3_server("shop"):
        python = python_with_daft(options.environment or Path(scratch, "daft")) if "daft" in options.peers else ""
        taxonomy = read_taxonomy("atlas-52")
        network = Classifier(
            ClassifierConfig(classes=len(taxonomy.leaves), backbone=options.backbone, image_size_px=SIZE_PX)
        )
        vocabulary = Vocabulary.of(taxonomy)
        save_artifact(f"{scratch}/model", network, vocabulary=vocabulary, taxonomy=taxonomy, metrics={})
        compile_into(f"{scratch}/model", options.compiled)
        uris = [str(file) for file in pictures(None, options.count, f"{scratch}/shop")]
        if options.store == "s3":
            client = boto3.client("s3")
            for uri in uris:
                client.upload_file(uri, "shop", f"images/{Path(uri).name}")
            uris = [f"s3://shop/images/{Path(uri).name}" for uri in uris]
        else:
            os.environ.pop("AWS_ENDPOINT_URL")
        write_catalog(f"{scratch}/catalog", uris)
        pq.write_table(pa.table({"image_uri": uris}), f"{scratch}/names.parquet")
        for number in range(options.rounds):
            for name, found in figures.items():
                found.append(measure(name, python, scratch, options.score_flags, precision))
                print(f"round {number + 1}: {name} {found[-1][0]:.1f} s, stream {found[-1][1]:.1f} s", flush=True)
    own = statistics.fmean(row[2] for row in figures[OWN])
    print(f"{'':>14}{'command s':>12}{'stream s':>12}{'pictures/s':>12}{'a core':>10}{'command':>10}{'stream':>10}")
    for name, found in figures.items():
        mean = statistics.fmean(row[2] for row in found)
        assert abs(mean - own) < SUM_TOLERANCE, f"{name} answers otherwise: {mean:.3f}, and {OWN} {own:.3f}"
        whole, stream = (statistics.median(row[at] for row in found) for at in (0, 1))
        ratios = [
            statistics.median(row[at] / mine[at] for row, mine in zip(found, figures[OWN], strict=True))
            for at in (0, 1)
        ]
        rate = options.count / stream
        print(
            f"{name:>14}{whole:12.1f}{stream:12.1f}{rate:12.1f}{rate / CORES:10.1f}{ratios[0]:10.2f}{ratios[1]:10.2f}"
        )
    print(
        f"{options.store}, {options.backbone}, {precision}, {options.count} pictures; the last columns: times {OWN}'s"
    )


if __name__ == "__main__":
    main()
