"What a run leaves behind: a table, a picture and the numbers; and which rows have got slower."
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import Row

PACKAGES = ("torch", "numpy", "skorch", "lightning", "fastai", "keras")
SLOWER = 1.2


def processor() -> str:
    "What the processor calls itself."
    try: lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError: return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine(threads: int, cuda: bool = False) -> dict:
    "What the numbers depend on, without the machine's name; with `cuda` the card too."
    import torch

    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try: versions[package] = version(package)
        except PackageNotFoundError: versions[package] = "not installed"
    card = {"card": torch.cuda.get_device_name()} if cuda else {}
    return card | {"system": platform.system(), "processor": processor(), "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count(),
            "threads": threads, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"), "versions": versions}


def load(text: str) -> tuple[dict[str, Row], dict]:
    "The rows of a results.json by name, and the machine that they are from."
    found = json.loads(text)
    return {row["name"]: Row(**row) for row in found["rows"]}, found["machine"]


def committed(path: Path) -> tuple[dict[str, Row], dict]:
    "The same of the committed results; without git, of the file as it is; nothing if there is none."
    done = subprocess.run(["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, capture_output=True, text=True) if path.parent.exists() else None
    if done and done.returncode == 0: return load(done.stdout)
    return load(path.read_text(encoding="utf-8")) if path.exists() else ({}, {})


def slower(now: Iterable[Row], before: dict[str, Row]) -> list[str]:
    "A sentence about each row that has got slower by more than 20%, or is not measured any more."
    lines = []
    for row in now:
        old = before.get(row.name)
        if old is None or not old.value: continue
        if row.value is None: lines.append(f"{row.name}: was {number(old.value)} {old.unit}, and is not measured now: {row.note}")
        elif (factor := row.slower_than(old)) > SLOWER:
            lines.append(f"{row.name}: {number(old.value)} has become {number(row.value)} {row.unit}, {factor - 1:.0%} slower")
    return lines


def number(value: float) -> str:
    "Three digits."
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    "Seconds in the unit that reads best."
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size: return f"{number(seconds/size)} {unit}"
    return f"{number(seconds/1e-9)} ns"


def table(rows: list[Row]) -> str:
    "The rows in Markdown."
    lines = ["| what | target | measured | middle half | met | seconds |", "|---|---|---|---|---|---|"]
    for row in rows:
        target = "" if row.target is None else f"{row.sense} {number(row.target)} {row.unit}"
        value, spread = ("", "") if row.value is None else (f"**{number(row.value)}**", f"{number(row.low)} to {number(row.high)}")
        sides = ", ".join(f"{side} {duration(taken)}" for side, taken in row.seconds.items())
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        lines.append(f"| {row.name} | {target} | {value} | {spread} | {met} | {'; '.join(filter(None, (sides, row.note)))} |")
    return "\n".join(lines)


def page(rows: list[Row], machine: dict, day: str) -> str:
    "results.md: the machine, the picture, the table."
    held = [row.met for row in rows if row.met is not None]
    groups = "\n\n".join(f"## {group}\n\n{table([row for row in rows if row.group == group])}" for group in dict.fromkeys(row.group for row in rows))
    return f"""# Benchmarks

Measured on {day}{f" on one {machine['card']}" if "card" in machine else ""}. {sum(held)} of {len(held)} targets met. Each number is the median over several rounds in which the sides
took turns, beside it the middle half of the rounds. [How it is measured]({"../"*(1 + ("card" in machine))}README.md).

- {machine['processor']}, {machine['cores']} cores, {machine['instructions']}, {machine['system']}; torch on {machine['threads']} thread(s); OMP_WAIT_POLICY {machine['OMP_WAIT_POLICY']}
- {', '.join(f'{name} {number}' for name, number in machine['versions'].items())}

![Each row beside its target](results.png)

{groups}
"""


def picture(rows: list[Row], path: Path) -> None:
    "A bar for each row that has a target, from the target to what was measured: to the left, faster than asked; to the right, slower."
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.effort is not None][::-1]
    figure = Figure(figsize=(11, 1.5 + 0.25*len(rows)), layout="constrained")
    axes = figure.subplots()
    furthest = max([4, *(max(row.effort, 1/row.effort) for row in rows)])*1.1
    for met, color, hatch, label in ((True, "#0072B2", "", "target met"), (False, "#D55E00", "///", "target not met")):
        bars = [(i, row.effort - 1) for i, row in enumerate(rows) if row.met is met]
        axes.barh([i for i, _ in bars], [width for _, width in bars], left=1, color=color, hatch=hatch, edgecolor="white", label=label)
    for i, row in enumerate(rows):
        axes.text(1.01, i, f"{number(row.value)}  ({row.sense} {number(row.target)} {row.unit})", va="center", fontsize=8, transform=axes.get_yaxis_transform())
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlim=(1/furthest, furthest), ylim=(-0.6, len(rows) - 0.4), xlabel="cost, as a multiple of what the target allows: left of 1 is better than asked")
    powers = [2.0**k for k in range(-10, 11, 1 if furthest < 10 else 2) if 1/furthest < 2.0**k < furthest]
    axes.set_xticks(powers, [f"{power:g}" if power >= 1 else f"1/{1/power:g}" for power in powers])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)


def write(rows: list[Row], machine: dict, folder: Path) -> None:
    "results.json, results.md and results.png."
    folder.mkdir(parents=True, exist_ok=True)
    day = date.today().isoformat()
    found = {"date": day, "machine": machine, "rows": [asdict(row) for row in rows]}
    (folder/"results.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder/"results.md").write_text(page(rows, machine, day), encoding="utf-8")
    picture(rows, folder/"results.png")
