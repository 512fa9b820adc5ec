"""The manifests of `cluster/`: known fields, pods that may do little, values that reach every resource."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.rendered import CLUSTER, FOLDERS, Document, all_pods, pods, ray_cluster, rendered, resource

CLUSTER_SPEC = {
    "rayVersion": str, "authOptions": {"mode": ("token", "disabled")}, "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"idleTimeoutSeconds": int, "securityContext": {str: object}},
    "gcsFaultToleranceOptions": {"redisAddress": str, "redisPassword": {"valueFrom": {"secretKeyRef": {str: str}}}},
    "headGroupSpec": {"rayStartParams": {str: str}, "template": {str: object}},
    "workerGroupSpecs": [{
        "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": {str: str},
        "template": {str: object},
    }],
}  # fmt: skip
RULE = {"alert": str, "expr": str, "for": str, "labels": {"severity": ("critical", "warning", "info")},
        "annotations": {"summary": str}}  # fmt: skip
SPECS: dict[str, Any] = {
    "RayCluster": CLUSTER_SPEC,
    "RayJob": {
        "entrypoint": str, "backoffLimit": int, "activeDeadlineSeconds": int, "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int, "submitterPodTemplate": {str: object}, "rayClusterSpec": CLUSTER_SPEC,
    },
    "RayService": {
        "upgradeStrategy": {"type": ("NewCluster", "None")}, "excludeHeadPodFromServeSvc": bool, "serveConfigV2": str,
        "rayClusterConfig": CLUSTER_SPEC,
    },
    "PodMonitor": {
        "selector": {"matchLabels": {str: str}},
        "podMetricsEndpoints": [{
            "port": str, "interval": str, "relabelings": [{"sourceLabels": [str], "targetLabel": str}],
        }],
    },
    "PrometheusRule": {"groups": [{"name": str, "rules": [RULE]}]},
}  # fmt: skip
"""The fields of the custom resources that are used here and their types: those of KubeRay from the API reference of
ray.io/v1 (KubeRay 1.6), those of the Prometheus operator from monitoring.coreos.com/v1."""
VERSIONS = {"Ray": "ray.io/v1", "Pod": "monitoring.coreos.com/v1", "Pro": "monitoring.coreos.com/v1"}
LOCKED = {
    "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip

pytestmark = pytest.mark.long  # kubectl takes half a second a folder


def wrong(value: Any, wanted: Any, where: str) -> Iterator[str]:
    """Yield what differs from the fields and types that are known."""
    if isinstance(wanted, dict) and str in wanted:
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


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_fields_of_custom_resources_are_known(folder: str) -> None:
    found = [document for document in rendered(folder) if document["kind"] in SPECS]
    assert found
    for document in found:
        assert document["apiVersion"] == VERSIONS[document["kind"][:3]]
        assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert list(wrong(document["spec"], SPECS[document["kind"]], document["kind"])) == []


def test_a_field_that_kuberay_does_not_know_would_be_found() -> None:
    document = json.loads(json.dumps(resource("shop", "RayCluster", "atlas-ray")["spec"]))
    document["workerGroupSpecs"][0] |= {"minReplica": 0, "maxReplicas": "20"}
    document["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    document["autoscalerOption"] = {}
    assert len(list(wrong(document, CLUSTER_SPEC, "spec"))) == 4


def test_all_else_is_as_the_schemas_of_kubernetes_have_it() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="the schemas of Kubernetes are in kubernetes-validate")
    documents = [document for folder in FOLDERS for document in rendered(folder) if document["kind"] not in SPECS]
    assert {"NetworkPolicy", "PodDisruptionBudget", "ResourceQuota", "CronJob"} <= {one["kind"] for one in documents}
    # In a resource of KubeRay Kubernetes does not look into the pods, so each is put into one of its own.
    documents += [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
        for _, template in all_pods()
    ]
    for document in documents:
        validate.validate(document, validate.latest_version(), strict=True)
    documents[-1]["template"]["spec"]["tolerance"] = []
    with pytest.raises(validate.ValidationError, match="tolerance"):
        validate.validate(documents[-1], validate.latest_version(), strict=True)
    del documents[-1]["template"]["spec"]["tolerance"]


def test_pods_may_do_little_and_say_what_they_take() -> None:
    for where, template in all_pods():
        spec = template["spec"]
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, where
        assert all(
            volume.keys() & {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}
            for volume in spec.get("volumes", [])
        )
        for container in spec["containers"]:
            assert container["securityContext"].items() >= LOCKED.items(), where
            assert container["securityContext"].get("runAsUser", 1) != 0, where
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert requests.keys() >= {"cpu", "memory", "ephemeral-storage"}, where
            assert "cpu" not in limits, where  # a core that is free is not left idle
            assert requests["memory"] == limits["memory"], where
            assert requests.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu"), where
            assert "/" in container["image"] or container["image"] == "atlas-ray:smoke", where
        # What an account may do in Kubernetes is for heads alone: their autoscaler needs it.
        assert spec.get("automountServiceAccountToken", True) == where.endswith(" head"), where
        assert spec["nodeSelector"], where


def test_gpu_pods_go_to_gpu_nodes_and_others_do_not() -> None:
    for where, template in all_pods():
        spec = template["spec"]
        gpus = int(spec["containers"][0]["resources"]["requests"].get("nvidia.com/gpu", "0"))
        tolerated = {toleration["key"] for toleration in spec.get("tolerations", [])}
        assert ("nvidia.com/gpu" in tolerated) == (gpus > 0), where
        assert bool(spec["nodeSelector"].keys() & {"atlas-ray/gpu", "atlas-ray/train"}) == (gpus > 0), where


def test_every_cluster_asks_for_a_token_runs_this_ray_and_has_room_in_its_head() -> None:
    import ray

    names = []
    for folder in FOLDERS:
        for document in rendered(folder):
            cluster = ray_cluster(document)
            if cluster is None:
                continue
            names.append((folder, document["metadata"]["name"]))
            assert cluster["authOptions"] == {"mode": "token"}
            assert cluster["rayVersion"] == ray.__version__
            assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
            for kind, template in pods(document):
                assert template["spec"]["containers"], (folder, kind)  # `assemble` put one in
            container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
            if folder != "smoke":
                assert container["resources"]["requests"]["memory"] == "32Gi"
            for group in cluster["workerGroupSpecs"]:
                ports = {port["name"] for port in group["template"]["spec"]["containers"][0]["ports"]}
                assert "metrics" in ports  # what the PodMonitor reads
    # A cluster and a service of one name would share the service of their heads.
    assert len({name for folder, name in names if folder != "smoke"}) == len(names) - 1 == 4


def test_what_pods_name_is_there() -> None:
    """Config maps, accounts and claims are rendered; secrets are those that the README makes."""
    text = (CLUSTER / "README.md").read_text()
    made_by_the_operator = {"atlas-ray"}
    for folder in FOLDERS:
        there = {(one["kind"], one["metadata"]["name"]) for one in rendered(folder) + rendered("shop")}
        for document in rendered(folder):
            for _, template in pods(document):
                spec = template["spec"]
                for volume in spec.get("volumes", []):
                    if "configMap" in volume:
                        assert ("ConfigMap", volume["configMap"]["name"]) in there
                    if "persistentVolumeClaim" in volume:
                        assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
                for container in spec["containers"]:
                    assert all(
                        ("ConfigMap", one["configMapRef"]["name"]) in there for one in container.get("envFrom", [])
                    )
                    mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
                    claims = {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
                    assert mounts <= {volume["name"] for volume in spec.get("volumes", [])} | claims
                account = spec.get("serviceAccountName")
                assert account is None or ("ServiceAccount", account) in there
                priority = spec.get("priorityClassName")
                assert priority is None or ("PriorityClass", priority) in there
        secrets = set(
            re.findall(r'"(?:secretName|name)": "(atlas-ray-(?:tokens|valkey))"', json.dumps(rendered(folder)))
        )
        assert all(f"create secret generic {name}" in text for name in secrets - made_by_the_operator)


def test_a_training_is_one_that_kueue_admits_whole() -> None:
    job = resource("shop/train", "RayJob", "atlas-ray-train")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    # What Kueue's webhook refuses: autoscaling, a cluster that stays, and a group named head.
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"] != "head"
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]


def test_a_team_changes_values_and_no_file_of_ours(tmp_path: Path) -> None:
    """A copy of `shop` with other values beside untouched parts: nothing of the example is left in what is applied."""
    before = rendered("shop")  # or skip
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    own = tmp_path / "cluster" / "shop" / "values"
    (own / "values.env").write_text(
        "CATALOG=s3://acme-a/catalog\nMODEL=s3://acme-a/models/2\nRUNS=s3://acme-b/runs\nINCOMING=s3://acme-b/in\n"
    )
    serve = yaml.safe_load((own / "serve.yaml").read_text())
    serve["applications"][0]["args"] |= {"model": "s3://acme-a/models/2", "image_prefixes": "s3://acme-a/pictures"}
    (own / "serve.yaml").write_text(yaml.safe_dump(serve))
    values = yaml.safe_load((own / "kustomization.yaml").read_text())
    values["namespace"] = "acme-shop"
    values["images"] = [{"name": "atlas-ray", "newName": "acme.example/team/image", "newTag": "7"}]
    patch = {
        "apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "gpu"},
        "template": {"spec": {
            "nodeSelector": {"atlas-ray/gpu": None, "acme/card": "l4"},
            "containers": [{"name": "ray-worker", "resources": {"requests": {"cpu": "11"}}}],
        }},
    }  # fmt: skip
    values["patches"] = [{"patch": yaml.safe_dump(patch)}]
    (own / "kustomization.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(["kubectl", "kustomize", tmp_path / "cluster" / "shop"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "s3://shop" not in done.stdout
    assert "registry.example" not in done.stdout
    after: list[Document] = list(yaml.safe_load_all(done.stdout))
    assert len(after) == len(before)
    cluster_wide = {"Namespace", "PriorityClass"}
    assert {one["metadata"].get("namespace") for one in after if one["kind"] not in cluster_wide} == {"acme-shop"}
    assert [one["metadata"]["name"] for one in after if one["kind"] == "Namespace"] == ["acme-shop"]
    (gpu,) = [template for one in after if one["kind"] == "RayCluster" for kind, template in pods(one) if kind == "gpu"]
    container = gpu["spec"]["containers"][0]
    assert gpu["spec"]["nodeSelector"] == {"acme/card": "l4"}
    assert container["image"] == "acme.example/team/image:7"
    assert container["resources"]["requests"] == {
        "cpu": "11", "memory": "28Gi", "ephemeral-storage": "40Gi", "nvidia.com/gpu": "1"
    }  # fmt: skip
