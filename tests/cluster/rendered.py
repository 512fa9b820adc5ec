"""The folders of `cluster/` as Kubernetes would get them: `kubectl kustomize`."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
FOLDERS = ("shop", "shop/score", "shop/train", "smoke")
"""What is applied as it is; the other folders are parts of these."""
Document = dict[str, Any]


@functools.cache
def rendered(folder: str) -> list[Document]:
    """Return the resources of a folder."""
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl, which renders the manifests")
    command = ["kubectl", "kustomize", str(CLUSTER / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # such as a field that kustomize is about to give up
    return list(yaml.safe_load_all(done.stdout))


def resource(folder: str, kind: str, name: str) -> Document:
    """Return one resource of a folder."""
    (found,) = [one for one in rendered(folder) if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def ray_cluster(document: Document) -> Document | None:
    """Return the specification of the cluster that a resource of KubeRay makes; None for others."""
    spec = document.get("spec") or {}
    for name in ("rayClusterSpec", "rayClusterConfig"):
        if name in spec:
            return spec[name]  # type: ignore[no-any-return]
    return spec if document["kind"] == "RayCluster" else None


def pods(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield the templates of pods that a resource holds, each with the name of its kind."""
    cluster = ray_cluster(document)
    if cluster is not None:
        yield "head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield group["groupName"], group["template"]
        if "submitterPodTemplate" in document["spec"]:
            yield "submitter", document["spec"]["submitterPodTemplate"]
    elif document["kind"] == "CronJob":
        yield "cron", document["spec"]["jobTemplate"]["spec"]["template"]
    elif document["kind"] == "StatefulSet":
        yield "set", document["spec"]["template"]


def all_pods() -> Iterator[tuple[str, Document]]:
    """Yield every template of a pod of every folder, each with where it is."""
    for folder in FOLDERS:
        for document in rendered(folder):
            for kind, template in pods(document):
                yield f"{folder}: {document['kind']}/{document['metadata']['name']} {kind}", template
