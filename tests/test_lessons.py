"Every notebook runs by itself, in a fresh Jupyter kernel, with no network, within the CPU seconds it declares."
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from course import LESSONS, NOTEBOOKS, ROOT, declared, read

MOST_SECONDS = {"13_convolutions": 90}  # all others: 60
NO_NETWORK = str(Path(__file__).parent/"no_network")


def sealed_environment() -> dict[str, str]:
    """The environment of a lesson's kernel: no network, two threads, no progress bars in the output.

    Threads that wait do not spin, so that the CPU seconds are those of the lesson whatever else the machine does.
    """
    return os.environ | {"PYTHONPATH": NO_NETWORK, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def run(path: Path) -> float:
    "Runs every cell of the notebook; returns the CPU seconds that its kernel took. Fails with the cell that failed."
    nb = read(path)
    nb.cells.append(nbformat.v4.new_code_cell("import os as _os; print(sum(_os.times()[:4]))"))
    client = NotebookClient(nb, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    with client.setup_kernel(env=sealed_environment()):
        for i, cell in enumerate(nb.cells):
            if cell.cell_type != "code": continue
            try: client.execute_cell(cell, i)
            except CellExecutionError as error:
                trace = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)
                pytest.fail(f"{path.name}, cell {i} (id {cell.id}): {error.ename}: {error.evalue}\n{trace[-2500:]}", pytrace=False)
    return float(nb.cells[-1].outputs[0].text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_alone(path, record_property, capsys):
    seconds = run(path)
    if path not in LESSONS: return
    most, _ = declared(path)
    with capsys.disabled(): print(f" {seconds:.0f} of {most} CPU seconds ", end="", flush=True)
    assert seconds <= most, f"{path.name} took {seconds:.1f} CPU seconds and declares {most}"
    assert most <= MOST_SECONDS.get(path.stem, 60)


def test_the_seal_holds():
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), timeout=5)\nexcept OSError as error: print(error)"
    shown = subprocess.run([sys.executable, "-c", code], env=sealed_environment(), capture_output=True, text=True, timeout=60)
    assert "must not use the network" in shown.stdout, shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    outputs = [(cell.id, output) for cell in cells for output in cell.outputs]
    assert outputs, f"{path.name} has no stored outputs: run it"
    for id, output in outputs:
        assert output.output_type != "error", f"{path.name}, cell {id}: a stored error: {output.get('ename')}"
        assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), f"{path.name}, cell {id}: a stored progress bar"
        assert str(ROOT) not in str(output) and str(Path.home()) + os.sep not in str(output), f"{path.name}, cell {id}: a path of somebody's machine"
