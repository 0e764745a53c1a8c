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
from playwright.sync_api import TimeoutError

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


KERNEL = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == '{}'"


def opened(browser, lab, file):
    "A notebook whose kernel is ready."
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(60_000)
    asks = page.locator(".jp-Dialog button.jp-mod-accept")  # which kernel, while it does not know them yet
    page.add_locator_handler(asks, lambda button: button.click())
    page.goto(f"{lab}/tree/nbs/{file}")
    page.wait_for_function(KERNEL.format("idle"))
    return page


def choose(page, menu, item):
    "Clicks an item of a menu."
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=re.compile(f"^{item}")).first.click()


def start(page):
    "Runs all cells. A kernel that says it is ready may still lose what it is sent in its first second: asked again then."
    for _ in range(5):
        choose(page, "Run", "Run All Cells")
        try: return page.locator(".jp-InputPrompt", has_text="[*]").first.wait_for(timeout=5000)
        except TimeoutError: pass
    raise AssertionError("the kernel does not begin")


def run_all(page):
    "Runs all cells, and waits for the last."
    start(page)
    page.wait_for_function(KERNEL.format("idle"), timeout=PATIENCE)


def test_a_lesson_runs_and_leads_on(browser, lab, project):
    page = opened(browser, lab, "02_matmul.ipynb")
    page.get_by_role("heading", name=re.compile("^02 Matrix")).first.wait_for()
    run_all(page)
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


def answer(page, stub, text) -> str:
    "Writes an answer into the cell of a stub, runs it and the check below it, and returns what that says."
    cell = page.locator(".jp-CodeCell").filter(has_text=f"def {stub}(").first
    cell.scroll_into_view_if_needed()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)
    said = page.locator(".jp-CodeCell").filter(has_text=f"check({stub})").first.locator(".jp-OutputArea")
    before = said.inner_text()
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")
    for _ in range(100):
        page.wait_for_timeout(200)
        if (now := said.inner_text()) != before and now: return now
    raise AssertionError(f"check({stub}) says what it said before: {before}")


def test_an_exercise_says_right_from_wrong(browser, lab, project):
    page = opened(browser, lab, "02_matmul.ipynb")
    page.get_by_role("heading", name=re.compile("^02 Matrix")).first.wait_for()
    run_all(page)
    assert "summed" in answer(page, "outer", "def outer(a, b): return (a*b).sum()") or page.get_by_text("Outer product: not yet").count()
    assert "passed" in answer(page, "outer", "def outer(a, b): return a[:, None]*b")
    page.locator("details summary", has_text="A solution").first.click()
    assert modified(project) == "", "nothing was saved, and the progress is no part of the project"


LONG = """from fdl import nn, optim
from fdl.data import DataLoader, TensorDataset
from fdl.functional import cross_entropy
from fdl.training import fit
import torch
model = nn.Linear(20, 3)
dl = DataLoader(TensorDataset(torch.randn(5000, 20), torch.arange(5000) % 3), 10)
history = fit(10_000, model, cross_entropy, optim.SGD(model.parameters(), lr=0.1), dl)"""


def test_interrupting_fit_keeps_the_history(browser, lab, project):
    path = project/"nbs"/"interrupted.ipynb"
    cells = [nbformat.v4.new_code_cell(LONG), nbformat.v4.new_code_cell("f'{len(history)} epochs are kept, {len(history) > 0}'")]
    like = nbformat.read(project/"nbs"/"02_matmul.ipynb", as_version=4)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=like.metadata), path)
    try:
        page = opened(browser, lab, path.name)
        start(page)
        page.locator(".jp-OutputArea", has_text="train_loss").first.wait_for()
        page.wait_for_timeout(1500)
        choose(page, "Kernel", "Interrupt Kernel")
        page.locator(".jp-OutputArea", has_text="Ctrl-C: the history has").first.wait_for()
        page.locator(".jp-OutputArea", has_text="epochs are kept, True").first.wait_for()
    finally: path.unlink()


MOVED = """import matplotlib.pyplot as plt
from exercises import slide
def line(slope=1): plt.plot([0, 1], [0, slope]); plt.ylim(0, 3); plt.show()
slide(line, slope=[1, 2, 3])"""


def test_a_slider_changes_its_picture(browser, lab, project):
    path = project/"nbs"/"moved.ipynb"
    like = nbformat.read(project/"nbs"/"02_matmul.ipynb", as_version=4)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(MOVED)], metadata=like.metadata), path)
    try:
        page = opened(browser, lab, path.name)
        start(page)
        picture = page.locator(".jp-OutputArea img").first
        picture.wait_for()
        before = picture.get_attribute("src")
        page.locator(".noUi-handle").first.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("before => (document.querySelector('.jp-OutputArea img')?.src ?? before) != before", arg=before)
    finally: path.unlink()

