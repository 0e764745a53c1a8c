"""Every notebook runs by itself in a fresh Jupyter kernel, sealed: with no network, two threads, a copy of the project that
it cannot write to, within the CPU seconds and the memory it declares. What it shows is what is stored in it. With other
seeds and on a processor that rounds otherwise its conclusions still hold.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

import run_notebooks
from course import LESSONS, NOTEBOOKS, ROOT, declared, read

MOST_SECONDS = {"14_convolutions": 75}  # all others: 60
LONGEST = ("05", "08", "12", "13", "14", "19")  # run a second time weekly only, so that `make test` keeps its quarter of an hour
NO_NETWORK = str(ROOT/"tests"/"no_network")
SHIFTED_SEEDS = Path(__file__).parent/"shifted_seeds.py"
# What each test runs: by how much the seeds are moved, and one of run_notebooks.ROUNDINGS.
HOW = {"test_runs_alone": (0, "stored"), "test_other_seeds": (1000, "avx2"), "test_other_rounding": (0, None)}
# $0 is the copy, $1 a Python, the rest the command. Without the flags that a temporary folder may have, a user may not mount it again.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro,nosuid,nodev "$0" && "$1" -c "$LOOPBACK" && shift && exec "$@"'
# Processes of one lesson may talk to one another: in a new namespace even 127.0.0.1 is down (0x8914: SIOCSIFFLAGS; 0x41: up and running).
LOOPBACK = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14x', b'lo', 0x41))"


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    "A copy of what a lesson may read, without permission to write."
    copy = tmp_path_factory.mktemp("sealed")/"fdl"
    for name in ("nbs", "fdl", "exercises", "data", "scripts"): shutil.copytree(ROOT/name, copy/name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for path in (*copy.rglob("*"), copy): path.chmod(0o555 if path.is_dir() else 0o444)
    return copy


@pytest.fixture(scope="module")
def namespace(copy) -> list[str]:
    "What goes before a command to run it in a namespace with no network and with the copy mounted read-only; empty where that is not allowed."
    before = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", READ_ONLY.replace("$LOOPBACK", LOOPBACK), str(copy), sys.executable]
    try: return before if subprocess.run([*before, "true"], capture_output=True).returncode == 0 else []
    except FileNotFoundError: return []


@pytest.fixture(scope="module")
def sealed(copy, namespace, tmp_path_factory) -> Callable:
    "Runs a Python program in the seal: sealed(arguments, home, further environment)."
    fonts = {"MPLCONFIGDIR": str(tmp_path_factory.mktemp("matplotlib"))}
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], env=os.environ | fonts, check=True)  # finds them once, not in every lesson

    def run(args: list, home: Path, **more: str) -> subprocess.CompletedProcess:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "JUPYTER", "IPYTHON", "FDL_"))}
        path = os.pathsep.join([str(copy)] if namespace else [NO_NETWORK, str(copy)])
        own = fonts | {name: str(home) for name in ("HOME", "USERPROFILE", "TMPDIR")} | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([*namespace, sys.executable, *args], env=kept | own | run_notebooks.ENVIRONMENT | more, cwd=home, capture_output=True, text=True, timeout=1800)
    return run


@pytest.fixture(scope="module")
def runs(sealed, copy, request) -> Iterator[Callable]:
    """The runs that the chosen tests want, two at a time, because a lesson seldom keeps two cores busy.

    runs(path, shift, rounding) waits for one: the notebook as it leaves it, and what it cost. Fails with the cell that failed.
    """
    def run(path: Path, shift: int, rounding: str) -> tuple[subprocess.CompletedProcess, nbformat.NotebookNode | None, dict]:
        with tempfile.TemporaryDirectory(prefix="fdl") as folder:  # a short name, because there are Unix sockets in it
            home = Path(folder)
            first = ["--first", SHIFTED_SEEDS] if shift else []
            done = sealed([copy/"scripts"/"run_notebooks.py", "--into", home, "--rounding", rounding, *first, copy/"nbs"/path.name], home, FDL_SEED_SHIFT=str(shift))
            return (done, None, {}) if done.returncode else (done, read(home/path.name), json.loads((home/"cost.json").read_text()))

    def result(path: Path, shift: int, rounding: str) -> tuple[nbformat.NotebookNode, dict]:
        done, nb, cost = waiting[path, shift, rounding].result()
        if done.returncode: pytest.fail(done.stderr[-3000:], pytrace=False)
        return nb, cost

    wanted = []
    for item in request.session.items:
        if item.module is not request.module or item.originalname not in HOW: continue
        (shift, rounding), params = HOW[item.originalname], item.callspec.params
        wanted.append((params["path"], shift, params.get("how", rounding)))
    with ThreadPoolExecutor(2) as pool:
        waiting = {each: pool.submit(run, *each) for each in wanted}
        yield result
        pool.shutdown(cancel_futures=True)


def test_the_seal_holds(sealed, copy, namespace, tmp_path, capsys):
    code = """import socket, fdl, torch
print(fdl.__file__, torch.get_num_threads())
try: socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error: print(error)
try: open(fdl.__file__, "a")
except OSError as error: print(error)"""
    done = sealed(["-c", code], tmp_path)
    where, network, *written = done.stdout.splitlines()
    assert where == f"{copy/'fdl'/'__init__.py'} 2" and ("unreachable" if namespace else "must not use the network") in network, done
    if namespace or not hasattr(os, "geteuid") or os.geteuid(): assert written, "the copy of the project can be written to"
    with capsys.disabled(): print(" sealed by " + ("namespaces " if namespace else "blocked sockets, and files without permission to write "), end="", flush=True)


def compare(path: Path, nb: nbformat.NotebookNode, exact: bool) -> None:
    "Fails with each cell of the course whose stored output is not what the run in `nb` shows."
    stored = run_notebooks.ours(read(path).cells)
    differences = [f"{path.name}, cell {i} (id {old.id}), {said}" for i, (old, new) in enumerate(zip(stored, nb.cells))
                   if old.cell_type == "code" and (said := run_notebooks.difference(old, new, exact))]
    if differences: pytest.fail("\n".join([*differences, f"To store what the cells show now:  make run LESSON={path.stem}"]), pytrace=False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_alone(path, runs):
    "In the seal, with the outputs that are stored in it: to the last digit on any x86 processor."
    nb, _ = runs(path, *HOW["test_runs_alone"])
    compare(path, nb, run_notebooks.machine() == run_notebooks.MACHINE and path.stem not in run_notebooks.OWN)


@pytest.mark.parametrize("path", [pytest.param(path, marks=pytest.mark.weekly if path.stem[:2] in LONGEST else (), id=path.stem) for path in NOTEBOOKS])
def test_other_seeds(path, runs, capsys):
    """What the lesson asserts hangs neither on the seeds that it sets nor on how the machine rounds, and it takes what it
    declares: up to twice that on a machine that is slow or busy. (The arithmetic in which outputs are stored is slower than a
    learner's, so its seconds do not count.)"""
    _, cost = runs(path, *HOW["test_other_seeds"])
    if path not in LESSONS: return
    seconds, memory = declared(path)
    took, used = cost["seconds"], (cost["memory"] or 0)/1e6
    with capsys.disabled(): print(f" {took:.0f} of {seconds} CPU seconds, {used:.0f} of {memory} MB ", end="", flush=True)
    assert took <= 2*seconds, f"{path.name} took {took:.1f} CPU seconds and declares {seconds}"
    assert used <= memory, f"{path.name} took {used:.0f} MB and declares {memory}"
    assert seconds <= MOST_SECONDS.get(path.stem, 60)


@pytest.mark.weekly
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem not in run_notebooks.OWN], ids=lambda p: p.stem)
@pytest.mark.parametrize("how", ["slow", "own"])
def test_other_rounding(how, path, runs):
    "On a machine that rounds otherwise the lesson shows the same words, and the same numbers where it does not say that they may differ."
    compare(path, runs(path, 0, how)[0], exact=False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs(path):
    cells = [cell for cell in run_notebooks.ours(read(path).cells) if cell.cell_type == "code"]
    outputs = [(cell.id, output) for cell in cells for output in cell.outputs]
    assert outputs, f"{path.name} has no stored outputs: run it"
    for id, output in outputs:
        assert output.output_type != "error", f"{path.name}, cell {id}: a stored error: {output.get('ename')}"
        assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), f"{path.name}, cell {id}: a stored progress bar"
        assert str(ROOT) not in str(output) and str(Path.home()) + os.sep not in str(output), f"{path.name}, cell {id}: a path of somebody's machine"
