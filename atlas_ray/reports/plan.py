"""Terminal output of a plan: what a run would take, and what it would refuse."""

import json
from typing import Any

from rich.table import Table

from atlas_ray.reports.terminal import wide_console

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def print_plan(plan: Any, *, as_json: bool = False) -> None:
    """Print a plan (`atlas_ray.runtime.plan.Plan`), as tables or for a program."""
    if as_json:
        print(json.dumps(plan.to_dict(), indent=1, ensure_ascii=False))
        return
    console = wide_console()
    title = f"{plan.tried} of {plan.pictures} pictures tried; nothing was written"
    table = Table("stage", "pictures/s of a process", "processes", "pictures/s", "memory of a process", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for stage in plan.stages:
        memory = f"{stage.memory_mib:.0f} MiB" if stage.memory_mib else ""
        table.add_row(stage.name, f"{stage.pictures_per_s:.0f}", str(stage.processes), f"{stage.rate:.0f}", memory)
    console.print(table)
    for line in lines(plan):
        console.print(line)


def lines(plan: Any) -> list[str]:
    """Return the sentences of a plan."""
    seconds = plan.seconds
    where = f"{plan.gpus} GPUs" if plan.gpus else f"{plan.threads or 'several'} threads each"
    said = [
        f"together {plan.pictures_per_s:.0f} pictures/s, {plan.pictures_per_s / plan.machines:.0f} a machine; "
        f"the slowest stage: {plan.bottleneck}",
        f"workers: {plan.workers} ({where}) on {plan.machines} {'machine' if plan.machines == 1 else 'machines'}",
        f"time: {duration(seconds['total'])} for {plan.pictures} pictures: start {duration(seconds['start'])}, stream "
        f"{duration(seconds['stream'])}, tables {duration(seconds['tables'])}",
        f"machine hours: {plan.machine_hours:.2f}"
        + ("" if plan.cost is None else f", cost: {plan.cost:.2f}; a million pictures more: {plan.million_cost:.2f}"),
    ]
    memory = sum(stage.memory_mib * stage.processes for stage in plan.stages if stage.name != "decode")
    if memory:
        said.append(f"memory: {memory / 1024:.1f} GiB of all these processes")
    for name, count in plan.files.items():
        said.append(f"files: {count} in {name}, about {size(plan.bytes.get(name, 0))}")
    for code, share in plan.refused.items():
        said.append(f"refused: {share:.1%} {code}")
    return [*said, *plan.notes]


def duration(seconds: float) -> str:
    """Write a time as a person reads it: 42 s, 3 min 20 s, 5 h 10 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Write a number of bytes in a unit that fits."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"
