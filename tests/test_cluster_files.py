"""The files of `cluster/`, read by those who have to read them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from atlas_ray.cli.main import main
from atlas_ray.serving.app import build

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "cluster"
CLUSTER_SPEC = {
    "rayVersion": str, "authOptions": {"mode": ("token", "disabled")}, "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"idleTimeoutSeconds": int, "securityContext": {str: object}},
    "headGroupSpec": {"rayStartParams": {str: str}, "template": "pod"},
    "workerGroupSpecs": [{
        "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": {str: str},
        "template": "pod",
    }],
}  # fmt: skip
SPECS: dict[str, Any] = {
    "RayCluster": CLUSTER_SPEC,
    "RayJob": {
        "entrypoint": str, "backoffLimit": int, "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int,
        "submitterPodTemplate": "pod", "rayClusterSpec": CLUSTER_SPEC,
    },
    "RayService": {
        "upgradeStrategy": {"type": ("NewCluster", "None")}, "excludeHeadPodFromServeSvc": bool, "serveConfigV2": str,
        "rayClusterConfig": CLUSTER_SPEC,
    },
}  # fmt: skip
"""KubeRay's fields that are used here and their types, from the API reference of ray.io/v1 (KubeRay 1.6)."""
POD = {
    "serviceAccountName", "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "containers",
    "volumes", "restartPolicy",
}  # fmt: skip
LOCKED = {
    "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip
CONTAINER = {"name", "image", "ports", "resources", "securityContext", "readinessProbe", "volumeMounts", "env"}


def manifests() -> list[Path]:
    return [path for path in sorted(CLUSTER.glob("*.yaml")) if "apiVersion" in path.read_text()]


def wrong(value: Any, wanted: Any, where: str) -> Iterator[str]:
    """Yield what differs from the fields and types that are known."""
    if wanted == "pod":
        pod = value["spec"]
        yield from (f"{where}.spec.{name}" for name in pod.keys() - POD)
        for container in pod["containers"]:
            yield from (f"{where}.containers.{name}" for name in container.keys() - CONTAINER)
            if container["securityContext"] != LOCKED:
                yield f"{where}.securityContext: {container['securityContext']}"
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            if requests["memory"] != limits["memory"] or requests.get("nvidia.com/gpu") != limits.get("nvidia.com/gpu"):
                yield f"{where}.resources: memory and GPUs of requests and limits differ"
    elif isinstance(wanted, dict) and str in wanted:
        kind = wanted[str]
        yield from (f"{where}.{key}: {text!r} is no text" for key, text in value.items() if not isinstance(text, kind))
    elif isinstance(wanted, dict):
        for name, inner in value.items():
            if name not in wanted:
                yield f"{where}.{name}"
            else:
                yield from wrong(inner, wanted[name], f"{where}.{name}")
    elif isinstance(wanted, list):
        for number, inner in enumerate(value):
            yield from wrong(inner, wanted[0], f"{where}[{number}]")
    elif isinstance(wanted, tuple):
        if value not in wanted:
            yield f"{where}: {value!r}"
    elif type(value) is not wanted:
        yield f"{where}: {value!r} is no {wanted.__name__}"


@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.name)
def test_the_fields_are_those_of_kuberay(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    assert document["apiVersion"] == "ray.io/v1"
    assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert list(wrong(document["spec"], SPECS[document["kind"]], "spec")) == []


def test_a_field_that_kuberay_does_not_know_would_be_found() -> None:
    document = yaml.safe_load((CLUSTER / "raycluster.yaml").read_text())["spec"]
    document["workerGroupSpecs"][0] |= {"minReplica": 0, "maxReplicas": "20"}
    document["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    document["headGroupSpec"]["template"]["spec"]["tolerance"] = []
    assert len(list(wrong(document, CLUSTER_SPEC, "spec"))) == 4


def test_no_two_of_them_have_the_same_name() -> None:
    # A cluster and a service of one name would share the service of their heads.
    names = [yaml.safe_load(path.read_text())["metadata"]["name"] for path in manifests()]
    assert len(set(names)) == len(names) == 4


def clusters(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.name)
def test_every_cluster_asks_for_a_token_and_runs_this_ray(path: Path) -> None:
    import ray

    cluster = clusters(yaml.safe_load(path.read_text()))
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == ray.__version__
    images = re.findall(r"image: (\S+)", path.read_text())
    assert set(images) == {"REGISTRY/atlas-ray:0.1.0"}


@pytest.mark.parametrize("kind", ["train", "score"])
def test_who_submits_a_job_is_locked_up_as_its_cluster_is(kind: str) -> None:
    spec = yaml.safe_load((CLUSTER / f"rayjob-{kind}.yaml").read_text())["spec"]
    (container,) = spec["submitterPodTemplate"]["spec"]["containers"]
    assert container["securityContext"] == spec["rayClusterSpec"]["autoscalerOptions"]["securityContext"] == LOCKED
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"  # a Kubernetes Job takes no other here


def serve_configs() -> dict[str, dict[str, Any]]:
    service = yaml.safe_load((CLUSTER / "rayservice.yaml").read_text())
    return {
        "serve.yaml": yaml.safe_load((CLUSTER / "serve.yaml").read_text()),
        "rayservice.yaml": yaml.safe_load(service["spec"]["serveConfigV2"]),
    }


@pytest.mark.parametrize("name", ["serve.yaml", "rayservice.yaml"])
def test_serve_and_the_builder_take_the_configuration(name: str) -> None:
    document = serve_configs()[name]
    config = ServeDeploySchema.model_validate(document)
    (application,) = config.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert isinstance(build(application.args), Application)
    assert application.args["tokens_file"]
    assert (config.http_options.request_timeout_s or 0) > 30  # the gateway's own limit comes first


@pytest.mark.parametrize("kind", ["train", "score"])
def test_the_jobs_of_the_manifests_have_flags_that_are_there(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    entrypoint = yaml.safe_load((CLUSTER / f"rayjob-{kind}.yaml").read_text())["spec"]["entrypoint"].split()
    assert entrypoint[:2] == ["python", f"jobs/{kind}.py"]
    flags = {word for word in entrypoint if word.startswith("--")}
    words = entrypoint[2:3] if kind == "train" else []
    with pytest.raises(SystemExit):
        main([kind, *words, "--help"])
    assert flags <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for word in entrypoint:
        assert not word.startswith("configs/") or (ROOT / word).exists()


def test_ray_takes_the_cluster_on_ec2() -> None:
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
    validate_config(prepare_config(config))
    starts = [line for name in ("head", "worker") for line in config[f"{name}_start_ray_commands"] if " start " in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads((CLUSTER / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) >= 8
    assert all(re.search(r"ray_(atlas_ray|serve)_\w+", expression) for expression in expressions)


def test_the_image_installs_what_the_project_names() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    assert "USER 1000" in text  # `runAsNonRoot` takes no name
