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
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import websocket
from jupyter_client import BlockingKernelClient

import setup_env
from course import LESSONS, NOTEBOOKS, ROOT, code

SETUP = ROOT/"scripts"/"setup_env.py"
POSIX = os.name == "posix"
STAMP = ROOT/".venv"/"fdl-setup.json"
BIN = ROOT/".venv"/"bin"
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
def test_run_names_the_lessons_when_there_is_none():
    command = ["make", "--no-print-directory", "run", "LESSON=zz"]  # a make above this one would have it name its folder
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stdout.splitlines() == ["No notebook begins with 'zz'; there are "
                                        + " ".join(path.stem for path in NOTEBOOKS) + "."]


def test_export_says_what_changed(tmp_path):
    skip = shutil.ignore_patterns(".*", "__pycache__")
    for name in ("fdl", "scripts"): shutil.copytree(ROOT/name, tmp_path/name, ignore=skip)
    (tmp_path/"nbs").mkdir()
    shutil.copy(ROOT/"pyproject.toml", tmp_path)
    for path in (LESSONS[0], ROOT/"nbs"/"index.ipynb"):
        text = path.read_text(encoding="utf-8").replace("def set_seed(", "def set_seeds(")
        (tmp_path/"nbs"/path.name).write_text(text, encoding="utf-8")

    def export() -> str:
        command = [sys.executable, tmp_path/"scripts"/"export.py"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first = export()
    assert first.startswith("Changed: README.md, ") and " fdl/core.py." in first and "nbs/" not in first
    assert export().startswith("Nothing changed") and "not saved yet" in first


def test_pip_shows_no_box(tmp_path, monkeypatch, capfd):
    "setuptools' own warning about an editable installation looks like a failure."
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT/name, tmp_path)
    shutil.copytree(ROOT/"fdl", tmp_path/"fdl")
    for name, value in {"ROOT": tmp_path, "VENV_PYTHON": sys.executable, "CONSTRAINTS": ""}.items():
        monkeypatch.setattr(setup_env, name, value)
    setup_env.pip("--no-index", "--no-deps", "--no-build-isolation", "--target", str(tmp_path/"there"), "--editable", ".")
    said = "".join(capfd.readouterr())
    assert "Successfully installed fdl" in said and "****" not in said


class Lab:
    "A running `make lab`: the page that it opens, and what its server answers."

    def __init__(self, base: str, page: str, token: str, folder: Path):
        self.base, self.page, self.folder = base, page, folder
        self.headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}

    def ask(self, url: str, body: dict | None = None, method: str = "GET") -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + url, data, self.headers, method=method)
        return urllib.request.urlopen(request, timeout=60).read()

    def open(self, path: Path) -> dict:
        "The model of a notebook that JupyterLab gets."
        return json.loads(self.ask(f"/api/contents/nbs/{path.name}?type=notebook&content=1"))

    def save(self, model: dict) -> str:
        "Saves what JupyterLab would; returns what then stands in the file."
        body = {"type": "notebook", "format": "json", "content": model["content"]}
        self.ask(f"/api/contents/{model['path']}", body, "PUT")
        return (self.folder/model["path"]).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    "`make lab`, on a copy of the notebooks that is committed to git."
    folder, own = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("own")
    shutil.copytree(ROOT/"nbs", folder/"nbs", ignore=shutil.ignore_patterns(".*"))
    git = ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x", "-c", "core.autocrlf=false"]
    for command in (["init"], ["add", "."], ["commit", "-m", "lessons"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    env = os.environ | {"JUPYTER_RUNTIME_DIR": str(own), "JUPYTERLAB_WORKSPACES_DIR": str(own/"workspaces"),
                        "TQDM_DISABLE": "1", "HOME": str(own)}
    log = own/"log"
    flags = f"--no-browser --ServerApp.port_retries=50 --ServerApp.root_dir={folder}"
    with log.open("w") as out:
        server = subprocess.Popen(["make", "lab", f"LAB_FLAGS={flags}"], cwd=ROOT, env=env,
                                  stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        address = r"(http://(?:127\.0\.0\.1|localhost):\d+)(/lab\S*)\?token=(\w+)"
        while not (found := re.search(address, log.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        lab = Lab(*found.groups(), folder)
        lab.runtime = own
        yield lab
    finally:
        if server.poll() is None: os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


needs_lab = pytest.mark.skipif(not POSIX or not STAMP.exists() or shutil.which("make") is None,
                               reason="stops the server with a POSIX signal, in the .venv that make made")


@needs_lab
def test_lab_opens_the_first_lesson(lab):
    "Beside its table of contents, and without asking whether it may fetch news."
    assert lab.page == "/lab/tree/nbs/00_setup.ipynb"
    assert b"<html" in lab.ask(lab.page).lower()
    layout = json.loads(lab.ask("/lab/api/workspaces/default"))["data"]["layout-restorer:data"]
    assert layout["left"]["current"] == "@jupyterlab/toc:plugin" and not layout["left"]["collapsed"]
    settings = json.loads(lab.ask("/lab/api/settings/@jupyterlab/apputils-extension:notification"))
    settings = settings["schema"]["properties"]
    assert settings["fetchNews"]["default"] == "false" and not settings["checkForUpdates"]["default"]


@needs_lab
def test_a_lesson_runs_in_the_lab(lab):
    """A kernel runs lesson 02 from top to bottom, in the environment in which it is checked.

    What JupyterLab writes into a notebook when its kernel starts, stands there already: nothing seems modified.
    """
    nb = {"path": "nbs/02_matmul.ipynb", "name": "02_matmul", "type": "notebook", "kernel": {"name": "python3"}}
    session = json.loads(lab.ask("/api/sessions", nb, "POST"))
    kernel = BlockingKernelClient(connection_file=str(lab.runtime/f"kernel-{session['kernel']['id']}.json"))
    kernel.load_connection_file()
    kernel.start_channels(hb=False)  # whose absence, on a busy machine, would pass for death
    kernel.wait_for_ready(timeout=60)
    said = kernel.kernel_info(reply=True, timeout=60)["content"]["language_info"]
    spec = json.loads(lab.ask("/api/kernelspecs"))["kernelspecs"]["python3"]["spec"]
    for path in NOTEBOOKS:
        metadata = lab.open(path)["content"]["metadata"]
        assert metadata["language_info"] == said, path.name
        assert metadata["kernelspec"] == {key: spec.get(key, "python3") for key in ("name", "display_name", "language")}
    check = "import os, shutil; assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'; " \
            f"assert shutil.which('nbdev-export') == {str(BIN/'nbdev-export')!r}"
    for i, source in enumerate([check, *code(ROOT/"nbs"/"02_matmul.ipynb")]):
        reply = kernel.execute_interactive(source, timeout=120, output_hook=lambda message: None)["content"]
        assert reply["status"] == "ok", f"code cell {i}: {reply['ename']}: {reply['evalue']}"
    kernel.stop_channels()


@needs_lab
def test_a_terminal_of_the_lab_has_the_commands(lab):
    name = json.loads(lab.ask("/api/terminals", {}, "POST"))["name"]
    socket = websocket.create_connection(f"{lab.base.replace('http', 'ws')}/terminals/websocket/{name}",
                                         header=[f"Authorization: {lab.headers['Authorization']}"], timeout=60)
    command = "command -v nbdev-export; echo $OMP_WAIT_POLICY; python -c 'import fdl; print(fdl.__file__)'; echo D''ONE"
    socket.send(json.dumps(["stdin", command + "\r"]))
    said = ""
    while "DONE" not in said:
        kind, *text = json.loads(socket.recv())
        if kind == "stdout": said += text[0]
    socket.close()
    lines = said.split()
    assert {str(BIN/"nbdev-export"), "PASSIVE", str(ROOT/"fdl"/"__init__.py")} <= set(lines), said


@needs_lab
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_saving_modifies_nothing(lab, path):
    "Not even when all has been run: counted, timed anew, with progress bars."
    stored = (lab.folder/"nbs"/path.name).read_text(encoding="utf-8")
    model = lab.open(path)
    assert lab.save(model) == stored
    for i, cell in enumerate(cells_of(model)):
        cell["execution_count"] = i
        cell["metadata"] = {"trusted": True, "execution": {"iopub.execute_input": "now"}}
        time_anew(cell)
        bar = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "0%"}
        cell["outputs"] += [{"output_type": "display_data", "metadata": {}, "data": bar}]
    assert lab.save(model) == stored


@needs_lab
def test_saving_keeps_what_the_learner_changed(lab):
    "Below a changed cell the outputs are the learner's, timings too; and so is what stands below the exercises."
    path = next(path for path in LESSONS if any(time_anew(cell) for cell in cells_of(lab.open(path))))
    model = lab.open(path)
    cells = cells_of(model)
    cells[0]["source"] += "\n# mine"
    timed = next(cell for cell in cells if time_anew(cell))
    error = {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "", "traceback": []}
    own = {"cell_type": "code", "id": "mine", "metadata": {}, "source": "1/0", "execution_count": 7, "outputs": [error]}
    model["content"]["cells"].insert(-1, own)
    lab.save(model)
    kept = {cell["id"]: cell for cell in cells_of(lab.open(path))}
    shutil.copy(path, lab.folder/"nbs")
    assert kept[cells[0]["id"]]["source"].endswith("# mine")
    assert kept[timed["id"]]["outputs"] == timed["outputs"]
    assert kept["mine"]["outputs"] == [error] and kept["mine"]["execution_count"] is None


def cells_of(model: dict) -> list[dict]:
    "The code cells of a notebook as JupyterLab has it."
    return [cell for cell in model["content"]["cells"] if cell["cell_type"] == "code"]


def time_anew(cell: dict) -> bool:
    "Changes the numbers that a cell prints if it is `timed`, as another run would; says whether it has some."
    if "#| timed" not in cell["source"]: return False
    before = json.dumps(cell["outputs"])
    for output in cell["outputs"]:
        if "text" in output: output["text"] = re.sub(r"(\d)\.(\d)", r"\1.3\2", output["text"])
    return json.dumps(cell["outputs"]) != before


def test_train_reaches_99_percent_also_if_it_was_killed(tmp_path):
    command = [sys.executable, ROOT/"scripts"/"train.py", "--checkpoint", tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as killed:
        while not (tmp_path/"seed0.pt.previous").exists() and killed.poll() is None: time.sleep(0.05)
        killed.kill()
    saved = torch.load(tmp_path/"seed0.pt", weights_only=True)
    assert saved["losses"][0][0].numel() and not saved["history"]                  # in the middle of its epoch
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"test set: .* accuracy (\d+\.\d+)%", done.stdout)[1]) >= 99, done.stdout
    for name in ("train", "mistakes"): assert (ROOT/"runs"/f"{name}.png").read_bytes().startswith(b"\x89PNG")
