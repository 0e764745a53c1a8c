"""Measures fdl beside its peers, and writes a table, a picture and the numbers.

    python -m benchmarks.run                  every group
    python -m benchmarks.run losses loader    some groups: the other rows stay as they are in the results
    python -m benchmarks.run --quick          two rounds of each, into runs/benchmarks: to see that it works
"""
import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from benchmarks import report
from benchmarks.measure import Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT/"benchmarks"/"results"
GROUPS = {"fit": "rows", "trainers": "rows", "loader": "rows", "optimizers": "rows", "losses": "rows", "convolution": "rows", "validation": "rows",
          "recipe": "recipe", "importing": "processes", "memory": "processes", "distributed": "processes", "scaling": "rows", "lessons": "processes", "gpu": "gpu"}
TABLES = {"": [group for group in GROUPS if group != "gpu"], "gpu": ["gpu"]}  # the folder in results/, and what its table holds


def measure(group: str, rounds: int, threads: int) -> list[Row]:
    "The rows of a group."
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows = getattr(importlib.import_module(f"benchmarks.{GROUPS[group]}"), group)(rounds)
    for row in rows: row.group = group
    return rows


def in_a_process(group: str, rounds: int, threads: int) -> list[Row]:
    "The same in a fresh process, so that what one group imports slows down no other; on the CPU, but for the group of the GPU."
    device = {"FDL_DEVICE": "cuda"} if group == "gpu" else {"CUDA_VISIBLE_DEVICES": "", "FDL_DEVICE": "cpu"}
    environment = os.environ | device | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT)}
    environment.pop("TQDM_DISABLE", None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder)/"rows.json"
        command = [sys.executable, "-m", "benchmarks.run", group, "--rounds", str(rounds), "--threads", str(threads), "--rows-to", str(file)]
        if subprocess.run(command, cwd=ROOT, env=environment).returncode: raise RuntimeError(f"the group {group} failed; its message stands above")
        return [Row(**row) for row in json.loads(file.read_text())]


def show(row: Row) -> str:
    "The row in a line."
    value = row.note if row.value is None else f"{report.number(row.value)} {row.unit}"
    target = "" if row.target is None else f"({row.sense} {report.number(row.target)}{'' if row.met is None else ', met' if row.met else ', NOT met'})"
    return f"  {row.name:66} {value} {target}"


def has_cuda() -> bool:
    "Whether there is a CUDA device."
    import torch

    return torch.cuda.is_available()


def main(groups: list[str], quick: bool, rounds: int | None, threads: int, out: Path | None, strict: bool) -> int:
    "Measures the groups, all of one table, writes the results, and says what has got slower; returns the exit code."
    rounds = rounds or (2 if quick else 7)
    folder = next(name for name, held in TABLES.items() if set(groups) <= set(held))
    out = (out or (ROOT/"runs"/"benchmarks" if quick else RESULTS))/folder
    before, elsewhere = report.committed(RESULTS/folder/"results.json")
    rows, failed, begin = {}, [], perf_counter()
    for group in groups:
        print(f"{group} ...", flush=True)
        start = perf_counter()
        try: found = in_a_process(group, rounds, threads)
        except RuntimeError as error:
            failed.append(group)
            print(f"  {error}", flush=True)
            continue
        rows |= {row.name: row for row in found}
        for row in found: print(show(row))
        print(f"  {perf_counter() - start:.0f} seconds", flush=True)
    print(f"{perf_counter() - begin:.0f} seconds in all")

    here, file = report.machine(threads, cuda=folder == "gpu"), out/"results.json"
    if file.exists():
        kept, then = report.load(file.read_text(encoding="utf-8"))
        kept = {name: row for name, row in kept.items() if row.group not in groups or row.group in failed}
        if kept and then != here: print(f"{len(kept)} rows that were not measured now are left out: they are from another machine or other versions.")
        elif kept: rows |= kept
    rows = sorted(rows.values(), key=lambda row: list(GROUPS).index(row.group))
    if rows:
        report.write(rows, here, out)
        print(f"results: {', '.join(f'{out.name}/results.{kind}' for kind in ('md', 'png', 'json'))}")

    lines = report.slower([row for row in rows if row.group in groups], before)
    if before and elsewhere != here: print("The committed results are of another machine or other versions: compare with care.")
    for line in lines: print(f"SLOWER  {line}")
    if before and not lines: print("No row is more than 20% slower than the committed results.")
    return 1 if failed or (strict and lines) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"any of {', '.join(GROUPS)}; none means all")
    parser.add_argument("--quick", action="store_true", help="two rounds, and results in runs/benchmarks")
    parser.add_argument("--rounds", type=int, help="how often each comparison is repeated (7)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (1: networks this small are slower on more)")
    parser.add_argument("--out", type=Path, help="the folder for the results")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a row has got slower by more than 20%%")
    parser.add_argument("--rows-to", type=Path, help=argparse.SUPPRESS)
    args = vars(parser.parse_args())
    args["groups"] = args["groups"] or TABLES[""] + TABLES["gpu"]*has_cuda()
    if unknown := set(args["groups"]) - set(GROUPS): parser.error(f"there is no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    rows_to = args.pop("rows_to")
    if rows_to: rows_to.write_text(json.dumps([asdict(row) for row in measure(args["groups"][0], args["rounds"], args["threads"])]))
    else: sys.exit(max(main(**args | {"groups": groups}) for held in TABLES.values() if (groups := [group for group in args["groups"] if group in held])))
