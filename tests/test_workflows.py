"""Workflow files: they parse, and call the targets that the Makefile has."""

import re
from pathlib import Path

import yaml

import atlas_ray

ROOT = Path(atlas_ray.__file__).parents[1]


def test_workflows_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called: set[str] = set()
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yaml")):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        assert jobs
        for job in jobs.values():
            for step in job["steps"]:
                assert "run" in step or "uses" in step
                called |= set(re.findall(r"\bmake ([a-z-]+)", step.get("run", "")))
    assert {"check", "test-fast", "docs", "install", "audit"} <= called <= targets


def test_what_continuous_integration_runs_is_a_target() -> None:
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
