"""The other files of `cluster/`, read by those who have to read them: Serve, `ray up`, a shell, Docker."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from atlas_ray.cli.main import main
from atlas_ray.serving.app import build
from tests.cluster.rendered import CLUSTER, ROOT, resource

SERVE = CLUSTER / "shop" / "values" / "serve.yaml"


def test_serve_and_the_builder_take_the_configuration() -> None:
    document = yaml.safe_load(SERVE.read_text())
    config = ServeDeploySchema.model_validate(document)
    (application,) = config.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert isinstance(build(application.args), Application)
    assert application.args["tokens_file"]
    assert (config.http_options.request_timeout_s or 0) > 30  # the gateway's own limit comes first


@pytest.mark.long
def test_the_service_has_the_configuration_of_the_overlay() -> None:
    spec = resource("shop", "RayService", "atlas-ray-endpoint")["spec"]
    assert spec["serveConfigV2"] == SERVE.read_text()
    mounts = spec["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["volumeMounts"]
    tokens = yaml.safe_load(SERVE.read_text())["applications"][0]["args"]["tokens_file"]
    assert str(Path(tokens).parent) in {mount["mountPath"] for mount in mounts}


def commands() -> dict[str, list[str]]:
    """Return the command lines of the manifests, by the verb."""
    cron = resource("shop", "CronJob", "atlas-ray-update")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    found = {"update": cron["containers"][0]["args"]}
    for verb in ("score", "train"):
        found[verb] = resource(f"shop/{verb}", "RayJob", f"atlas-ray-{verb}")["spec"]["entrypoint"].split()
    return {verb: words[words.index("python") :] for verb, words in found.items()}


@pytest.mark.long
@pytest.mark.parametrize("verb", ["score", "train", "update"])
def test_the_commands_of_the_manifests_are_there(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    entrypoint = commands()[verb]
    assert entrypoint[1] == f"jobs/{verb}.py"
    assert (ROOT / entrypoint[1]).exists()
    flags = {word.split("=")[0] for word in entrypoint if word.startswith("--")}
    words = entrypoint[2:3] if verb == "train" else []
    with pytest.raises(SystemExit):
        main([verb, *words, "--help"])
    assert flags <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert all((ROOT / word).exists() for word in entrypoint if word.startswith("configs/"))
    named = set(re.findall(r"\$\(?([A-Z]+)", " ".join(entrypoint)))
    values = (CLUSTER / "shop" / "values" / "values.env").read_text()
    assert named
    assert named <= set(re.findall(r"^([A-Z_]+)=", values, re.MULTILINE))


def test_ray_takes_the_cluster_on_ec2() -> None:
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
    validate_config(prepare_config(config))
    starts = [line for name in ("head", "worker") for line in config[f"{name}_start_ray_commands"] if " start " in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)


def expressions() -> list[str]:
    """Return what the dashboard and the alerts ask Prometheus for."""
    dashboard = json.loads((CLUSTER / "grafana.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) >= 8
    rules: dict[str, Any] = yaml.safe_load((CLUSTER / "monitoring" / "alerts.yaml").read_text())
    alerts = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    return alerts + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_are_exported() -> None:
    """Ours by the code that makes them, Ray's by its agent; those of Serve are compared with a running endpoint."""
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    ours = set(
        re.findall(
            r'"(atlas_ray_\w+)"', "".join(path.read_text() for path in (ROOT / "atlas_ray" / "serving").glob("*.py"))
        )
    )
    for expression in expressions():
        names = re.findall(r"\b(?:ray|kube)_\w+", expression)
        assert names
        for name in names:
            own = name.removeprefix("ray_")
            own = re.sub(r"_(bucket|sum|count)$", "", own) if own.startswith("atlas_ray") else own
            assert own in ours or own in METRICS_GAUGES or own.startswith(("serve_", "kube_", "io_cluster")), name


def test_the_image_installs_what_the_project_names() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    assert "USER 1000" in text  # `runAsNonRoot` takes no name
    assert {"gcc", "libc6-dev", "wget"} <= set(text.split())  # Triton's launcher, KubeRay's probes
    # What a build for CPUs installs first are the versions that the second step is held to.
    (pattern,) = re.findall(r"grep -E '([^']+)' constraints\.txt", text)
    assert len(re.findall(pattern, (ROOT / "constraints.txt").read_text(), re.MULTILINE)) == 2


def test_a_shell_can_read_the_smoke_test() -> None:
    script = CLUSTER / "smoke-test.sh"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    text = script.read_text()
    (parts,) = re.findall(r"for part in ([a-z ]+); do", text)
    assert all((CLUSTER / part / "kustomization.yaml").exists() for part in parts.split())
    for job in re.findall(r"jobs/\w+\.py", text):
        assert (ROOT / job).exists()
    assert script.stat().st_mode & 0o100
