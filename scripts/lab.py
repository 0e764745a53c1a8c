"""Opens JupyterLab at the first lesson: `make lab`.

    python scripts/lab.py [FLAG OF JUPYTERLAB]...

Kernels and terminals get what the checks of the lessons get. Who opens, runs and saves a lesson
without changing its code finds nothing modified, neither in JupyterLab nor in git.
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from ipykernel.ipkernel import IPythonKernel
from jupyter_client.kernelspec import get_kernel_spec
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyterlab.labapp import LabApp
from jupyterlab_server.workspaces_handler import WorkspacesManager
from nbdev.clean import clean_nb

from run_notebooks import ENVIRONMENT, difference

ROOT = Path(__file__).resolve().parent.parent
LAB = Path(sys.prefix)/"share"/"jupyter"/"lab"
# Of what the checks set, this is the learner's choice.
LEARNERS = {"FDL_STATIC", "FDL_DEVICE", "OMP_NUM_THREADS", "TQDM_DISABLE", "MPLBACKEND"}
NO_NEWS = {"@jupyterlab/apputils-extension:notification":
           {"fetchNews": "false", "checkForUpdates": False}}
CONTENTS = "@jupyterlab/toc:plugin"
SIDEBAR = {"collapsed": False, "visible": True, "current": CONTENTS,
           "widgets": ["filebrowser", "running-sessions", CONTENTS, "extensionmanager.main-view"]}
PROGRESS_BAR = "application/vnd.jupyter.widget-view+json"


def code_cells(nb: dict) -> list[dict]:
    "The code cells of a notebook."
    return [cell for cell in nb["cells"] if cell["cell_type"] == "code"]


def in_git(path: Path) -> nbformat.NotebookNode | None:
    "The notebook as it was last committed, if there is git and it was."
    if not shutil.which("git"): return None
    done = subprocess.run(["git", "show", f"HEAD:./{path.name}"], cwd=path.parent,
                          capture_output=True, encoding="utf-8")
    return None if done.returncode else nbformat.reads(done.stdout, as_version=4)


def keep_what_holds(nb: dict, path: Path) -> None:
    """Gives the cells of `nb` git's outputs where those still hold: timings differ at each run.

    Only down to the first cell whose code is not git's: below it, what is shown is the learner's.
    An output that stands in the file at `path` stays.
    """
    if not (committed := in_git(path)): return
    stored = {cell.id: cell.outputs for cell in code_cells(nbformat.read(path, as_version=4))}
    for cell, old in zip(code_cells(nb), code_cells(committed)):
        if cell["source"] != old.source: return
        if cell["outputs"] == stored.get(cell["id"]): continue
        if not difference(old, nbformat.from_dict(cell), exact=False): cell["outputs"] = old.outputs


def before_saving(model: dict, path: str, contents_manager: AsyncLargeFileManager, **_) -> None:
    "Cleans a notebook as `make export` does, and of progress bars, which nobody could show again."
    if model["type"] != "notebook": return
    nb = model["content"]
    clean_nb(nb, allowed_cell_metadata_keys=["trusted"])  # which Jupyter takes out itself
    for cell in code_cells(nb):
        outputs = cell["outputs"]
        cell["outputs"] = [out for out in outputs if PROGRESS_BAR not in out.get("data", {})]
    keep_what_holds(nb, Path(contents_manager.root_dir)/path)


class Lessons(AsyncLargeFileManager):
    """Hands out notebooks with the metadata that JupyterLab puts in when it starts their kernel.

    So it takes them for unmodified. They are saved without.
    """
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.register_pre_save_hook(before_saving)

    async def get(self, *args, **kwargs) -> dict:
        model = await super().get(*args, **kwargs)
        if model["type"] == "notebook" and model["content"]:
            metadata = model["content"].metadata
            if metadata.get("kernelspec", {}).get("name") == "python3":
                metadata.kernelspec.display_name = get_kernel_spec("python3").display_name
                metadata.language_info = IPythonKernel.language_info
        return model


def main() -> None:
    os.environ |= {name: value for name, value in ENVIRONMENT.items() if name not in LEARNERS}
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    (LAB/"settings").mkdir(parents=True, exist_ok=True)
    (LAB/"settings"/"overrides.json").write_text(json.dumps(NO_NEWS))
    workspaces = Path(os.environ.get("JUPYTERLAB_WORKSPACES_DIR") or LAB/"workspaces")
    if not workspaces.exists():  # later it is as the learner left it
        data = {"layout-restorer:data": {"left": SIDEBAR}}
        text = json.dumps({"data": data, "metadata": {"id": "default"}})
        WorkspacesManager(str(workspaces)).save("default", text)
    os.chdir(ROOT)
    flags = ["--allow-root", "--ServerApp.contents_manager_class=lab.Lessons",
             "--LabApp.default_url=/lab/tree/nbs/00_setup.ipynb",
             f"--LabApp.workspaces_dir={workspaces}"]
    if os.name != "nt":  # not the login shell that Jupyter may take: its profile may reset the PATH
        shell = {"shell_command": [os.environ.get("SHELL") or "sh"]}
        flags.append(f"--ServerApp.terminado_settings={shell}")
    LabApp.launch_instance(flags + sys.argv[1:])


if __name__ == "__main__": main()
