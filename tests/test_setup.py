"The commands of the README: what they do in a fresh clone, and what they say when a machine lacks something."
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient

from course import ROOT, code

SETUP = ROOT/"scripts"/"setup_env.py"
POSIX = os.name == "posix"
STAMP = ROOT/".venv"/"fdl-setup.json"
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def run_setup(before: str = "", setup: Path = SETUP, env: dict | None = None) -> subprocess.CompletedProcess:
    "Runs setup_env.py after the statements in `before`."
    program = f"import sys; {before}\nsys.argv = ['setup_env.py', 'base']; import runpy; runpy.run_path({str(setup)!r}, run_name='__main__')"
    return subprocess.run([sys._base_executable, "-c", program], capture_output=True, text=True, env=os.environ | (env or {}), timeout=300)


@pytest.fixture
def fresh(tmp_path) -> Path:
    "The files that setting up needs, in a new folder; returns its setup_env.py."
    (tmp_path/"scripts").mkdir()
    for name in ("settings.ini", "setup.py", "pyproject.toml", "constraints.txt", "README.md"): shutil.copy(ROOT/name, tmp_path)
    return Path(shutil.copy(SETUP, tmp_path/"scripts"))


def test_old_python():
    done = run_setup("sys.version_info = (3, 8, 10)")
    assert done.returncode == 1 and "needs Python 3.10 or newer" in done.stderr and "make lab PYTHON=" in done.stderr


def test_version_check_agrees_with_the_metadata():
    least = re.search(r"min_python = (\d+)\.(\d+)", (ROOT/"settings.ini").read_text(encoding="utf-8")).groups()
    assert f"sys.version_info < ({least[0]}, {least[1]})" in SETUP.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_missing_venv(fresh, module):
    done = run_setup(f"sys.modules['{module}'] = None", fresh)
    assert done.returncode == 1 and f"has no `{module}` module" in done.stderr and "apt install python3-venv" in done.stderr


def test_no_network(fresh):
    done = run_setup("", fresh, {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"})
    assert done.returncode == 1 and "could not be reached" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(not STAMP.exists(), reason=".venv was made by hand, as the README shows")
def test_second_time_is_quick():
    extras = json.loads(STAMP.read_text())["extras"]
    start = time.perf_counter()
    subprocess.run([sys._base_executable, SETUP, *extras], check=True)
    assert time.perf_counter() - start < 5


@needs_make
@pytest.mark.skipif(not POSIX, reason="looks for a missing program with a POSIX shell")
def test_no_python_at_all():
    done = subprocess.run(["make", "test", "PYTHON=no-such-python"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "There is no 'no-such-python' here" in done.stdout


@needs_make
def test_help_lists_every_command():
    makefile = (ROOT/"Makefile").read_text(encoding="utf-8")
    commands = re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [c for c in commands if not re.search(rf"^  {c}\s+\S", shown, re.M)]


@needs_make
@pytest.mark.skipif(not POSIX or not STAMP.exists(), reason="stops the server with a POSIX signal, in the .venv that make made")
def test_lab_serves_and_a_lesson_runs_in_it(tmp_path):
    "`make lab` prints an address that opens the first lesson; a kernel that it starts runs lesson 02 from top to bottom."
    env = os.environ | {"JUPYTER_RUNTIME_DIR": str(tmp_path), "TQDM_DISABLE": "1"}
    log = tmp_path/"log"
    with log.open("w") as out:
        server = subprocess.Popen(["make", "lab", "LAB_FLAGS=--no-browser --ServerApp.port_retries=50"], cwd=ROOT, env=env,
                                  stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while not (found := re.search(r"(http://(?:127\.0\.0\.1|localhost):\d+)(/lab\S*)\?token=(\w+)", log.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        base, page, token = found.groups()
        assert page == "/lab/tree/nbs/00_setup.ipynb"

        def ask(url, body=None):
            headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
            request = urllib.request.Request(base + url, json.dumps(body).encode() if body else None, headers)
            return urllib.request.urlopen(request, timeout=60).read()
        assert b"<html" in ask(page).lower()
        session = json.loads(ask("/api/sessions", {"path": "nbs/02_matmul.ipynb", "name": "02_matmul", "type": "notebook", "kernel": {"name": "python3"}}))
        kernel = BlockingKernelClient(connection_file=str(tmp_path/f"kernel-{session['kernel']['id']}.json"))
        kernel.load_connection_file()
        kernel.start_channels()
        kernel.wait_for_ready(timeout=60)
        for i, source in enumerate(code(ROOT/"nbs"/"02_matmul.ipynb")):
            reply = kernel.execute_interactive(source, timeout=120, output_hook=lambda message: None)["content"]
            assert reply["status"] == "ok", f"code cell {i}: {reply['ename']}: {reply['evalue']}"
        kernel.stop_channels()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def test_train_reaches_99_percent():
    done = subprocess.run([sys.executable, ROOT/"scripts"/"train.py"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"test set: .* accuracy (\d+\.\d+)%", done.stdout)[1]) >= 99, done.stdout
    for name in ("train", "mistakes"): assert (ROOT/"runs"/f"{name}.png").read_bytes().startswith(b"\x89PNG")
