"""Whether the pods of `cluster/` hold what our jobs ask Ray for, by the scheduler of Ray's own autoscaler."""

import re
import shlex
from collections import Counter
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.train import ScalingConfig

from atlas_ray.runtime.workers import WorkerPlan, plan_workers
from atlas_ray.serving.app import build
from tests.cluster.rendered import FOLDERS, Document, pods, ray_cluster, rendered, resource

pytestmark = pytest.mark.long  # kubectl takes half a second a folder

TASK = {"CPU": 1.0}
"""What a task of Ray Data asks for: one that reads, decodes, shuffles or writes."""
CORES_PER_GPU = 75
"""Cores that decode for one large GPU with a small model; the README tells where the number comes from."""


def autoscaling(cluster: Document) -> AutoscalingConfig:
    """Return what Ray's autoscaler makes of a cluster's specification."""
    config = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "a", "namespace": "b"}, "spec": cluster})
    return AutoscalingConfig(config, skip_content_hash=True)


def started(cluster: Document, asked: list[dict[str, float]]) -> Counter[str]:
    """Return the number of pods of each group that Ray starts for requests; fail if one never fits."""
    config = autoscaling(cluster)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(one) for one in asked]),
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert not reply.infeasible_resource_requests
    return Counter({launch.instance_type: launch.count for launch in reply.to_launch})


def planned(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> WorkerPlan:
    """Return how a command's stream is shared out on a cluster whose workers are not there yet."""
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 0.0}}])
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    workers, device = (flag_of(command, name) for name in ("workers", "device"))
    return plan_workers(device=device, workers=int(workers), threads=0)


def flag_of(command: list[str], name: str) -> str:
    """Return a flag's value, given as a word of its own or after `=`."""
    return re.split(rf"--{name}[= ]", " ".join(command))[1].split()[0]


def asked_by(plan: WorkerPlan) -> list[dict[str, float]]:
    """Return what a stream asks for, with as many decoding tasks as keep its GPUs busy."""
    model = {"CPU": float(plan.actor_options["num_cpus"]), "GPU": float(plan.actor_options["num_gpus"])}
    fetcher = {"CPU": float(plan.fetcher_cpus)}
    return [model] * plan.workers + [fetcher] * plan.fetchers + [TASK] * (CORES_PER_GPU * plan.gpus)


@pytest.mark.parametrize("job", ["score", "update"])
def test_a_scoring_run_fits_with_the_cores_that_its_gpus_need(monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    if job == "score":
        document = resource("shop/score", "RayJob", "atlas-ray-score")
        cluster, command = document["spec"]["rayClusterSpec"], shlex.split(document["spec"]["entrypoint"])
    else:
        cluster = resource("shop", "RayCluster", "atlas-ray")["spec"]
        cron = resource("shop", "CronJob", "atlas-ray-update")
        command = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    plan = planned(monkeypatch, command)
    assert plan.gpus == 4
    found = started(cluster, asked_by(plan))
    assert found["gpu"] == 4
    assert found["cpu"] >= 15


def test_a_training_fits_into_the_pods_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resource("shop/train", "RayJob", "atlas-ray-train")["spec"]
    workers = int(flag_of(spec["entrypoint"].split(), "workers"))
    each: dict[str, float] = ScalingConfig(num_workers=workers, use_gpu=True)._resources_per_worker_not_none
    found = started(spec["rayClusterSpec"], [each] * workers + [TASK] * 64)
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert found == {"train": group["replicas"]}
    resources = autoscaling(spec["rayClusterSpec"]).get_node_resources("train")
    assert resources["GPU"] * group["replicas"] == workers  # no GPU is paid for that learns nothing


@pytest.mark.parametrize("model_gpus", [None, 0])
def test_the_endpoint_fits_while_a_version_is_replaced(model_gpus: int | None) -> None:
    spec = resource("shop", "RayService", "atlas-ray-endpoint")["spec"]
    args: dict[str, Any] = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]
    if model_gpus is not None:
        args["model_gpus"] = model_gpus
    gateway: Any = build(args)._bound_deployment
    (model,) = gateway.init_args[1].values()
    asked: list[dict[str, float]] = []
    for deployment, most in ((gateway, args["gateways"]), (model._bound_deployment, args["max_replicas"])):
        options = deployment.ray_actor_options
        each = {"CPU": float(options["num_cpus"]), "GPU": float(options.get("num_gpus", 0))}
        asked += [each] * (2 * most)  # `max_surge_percent` is 100: new ones are ready before the old ones go
    found = started(spec["rayClusterConfig"], asked)
    assert found["serve"] >= 2
    assert found["serve-gpu"] == 2 * args["max_replicas"] * args["model_gpus"]


def test_what_does_not_fit_is_found() -> None:
    spec = resource("shop", "RayCluster", "atlas-ray")["spec"]
    with pytest.raises(AssertionError):
        started(spec, [{"GPU": 2.0}])  # no pod has two
    with pytest.raises(AssertionError):
        started(spec, [{"GPU": 1.0}] * 5)


def test_the_quota_has_room_for_all_at_once() -> None:
    hard = resource("shop", "ResourceQuota", "atlas-ray")["spec"]["hard"]
    needed: Counter[str] = Counter()
    for folder in FOLDERS[:3]:
        for document in rendered(folder):
            cluster = ray_cluster(document)
            counts = {group["groupName"]: group["maxReplicas"] for group in (cluster or {}).get("workerGroupSpecs", [])}
            beside = 2 if document["kind"] == "RayService" else 1
            for kind, template in pods(document):
                count = counts.get(kind, 1) * beside
                needed["pods"] += 1000 * count
                for container in template["spec"]["containers"]:
                    for name, quantity in container["resources"]["requests"].items():
                        needed[f"requests.{name}"] += count * amount(quantity)
    assert needed.keys() == hard.keys()
    for name, limit in hard.items():
        assert needed[name] <= amount(limit) < 2 * needed[name], (name, needed[name])


def amount(quantity: str) -> int:
    """Return a quantity of Kubernetes in thousandths."""
    number, unit = re.fullmatch(r"(\d+)(m|Mi|Gi|Ti|)", quantity).groups()  # type: ignore[union-attr]
    factors = {"m": 1, "": 1000, "Mi": 1000 * 2**20, "Gi": 1000 * 2**30, "Ti": 1000 * 2**40}
    return int(number) * factors[unit]
