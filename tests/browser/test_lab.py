"A lesson in JupyterLab as `make lab` opens it: run whole, saved, the next one opened; nothing left modified."
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import nbformat
import pytest

from conftest import ROOT

PATIENCE = 300_000  # milliseconds, for a lesson that takes half a minute of a quiet machine


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "A clone of the project with the notebooks as they are here."
    folder = tmp_path_factory.mktemp("clone")/"fdl"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    for path in (ROOT/"nbs").glob("*.ipynb"): shutil.copy(path, folder/"nbs")
    git = ["git", "-C", folder, "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "commit", "--quiet", "--all", "--allow-empty", "-m", "as they are here"], check=True)
    return folder


@pytest.fixture(scope="module")
def lab(project, tmp_path_factory):
    "The address of a running JupyterLab."
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    env = os.environ | {"JUPYTERLAB_WORKSPACES_DIR": str(tmp_path_factory.mktemp("workspaces"))}
    command = [sys.executable, project/"scripts"/"lab.py", "--no-browser", f"--port={port}", "--IdentityProvider.token="]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/lab"
    for _ in range(120):
        try: urlopen(address).close()
        except OSError: time.sleep(0.5)
        else: break
    yield address
    server.terminate()
    server.wait()


def modified(project) -> str:
    "What git says is not as it was committed."
    return subprocess.run(["git", "status", "--short"], cwd=project, capture_output=True, text=True).stdout


def test_a_lesson_runs_and_leads_on(browser, lab, project):
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{lab}/tree/nbs/02_matmul.ipynb")
    page.get_by_role("heading", name=re.compile("^02 Matrix")).first.wait_for()
    kernel = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == '{}'"
    page.wait_for_function(kernel.format("idle"))
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(kernel.format("busy"))
    page.wait_for_function(kernel.format("idle"), timeout=PATIENCE)
    page.keyboard.press("Control+s")
    page.wait_for_timeout(3000)
    cells = nbformat.read(project/"nbs"/"02_matmul.ipynb", as_version=4).cells
    outputs = [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    assert sum("image/png" in out.get("data", {}) for out in outputs) > 5
    assert modified(project) == ""

    page.locator(".jp-Notebook").first.click(position={"x": 5, "y": 5})
    page.keyboard.press("Escape")
    page.keyboard.press("Control+End")
    page.get_by_role("link", name=re.compile("^03 ")).last.click()
    page.get_by_role("heading", name=re.compile("^03 ")).first.wait_for()
    assert page.locator(".jp-mod-dirty").count() == 0 and modified(project) == ""
