"""Opens JupyterLab at the first lesson: `make lab`.

    python scripts/lab.py [FLAG OF JUPYTERLAB]...

Kernels and terminals get what the checks of the lessons get. Who opens, runs and saves a lesson without changing its
code finds nothing modified, in JupyterLab or in git.
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
OWN = {"FDL_DEVICE", "OMP_NUM_THREADS", "TQDM_DISABLE", "MPLBACKEND"}  # of what the checks set, this is the learner's choice
PROGRESS_BAR = "application/vnd.jupyter.widget-view+json"
NO_NEWS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
SIDEBAR = {"collapsed": False, "visible": True, "current": "@jupyterlab/toc:plugin",
           "widgets": ["filebrowser", "running-sessions", "@jupyterlab/toc:plugin", "extensionmanager.main-view"]}


def code_cells(nb: dict) -> list[dict]:
    "The code cells of a notebook."
    return [cell for cell in nb["cells"] if cell["cell_type"] == "code"]


def as_in_git(content: dict, path: Path) -> None:
    """Gives each cell the outputs that git has for it, where they still hold: timings, say, differ from run to run.

    Only as long as the code is git's: below a changed cell, what is shown is the learner's. So is what stood in the file already.
    """
    git = shutil.which("git") and subprocess.run(["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, capture_output=True, encoding="utf-8")
    if not git or git.returncode: return
    in_file = {cell.id: cell.outputs for cell in code_cells(nbformat.read(path, as_version=4))}
    for cell, old in zip(code_cells(content), code_cells(nbformat.reads(git.stdout, as_version=4))):
        if cell["source"] != old.source: return
        if cell["outputs"] != in_file.get(cell["id"]) and not difference(old, nbformat.from_dict(cell), exact=False): cell["outputs"] = old.outputs


def before_saving(model: dict, path: str, contents_manager: AsyncLargeFileManager, **kwargs) -> None:
    "Makes of a notebook what `make export` would, and takes out progress bars, which nobody could show again."
    if model["type"] != "notebook": return
    clean_nb(model["content"], allowed_cell_metadata_keys=["trusted"])
    for cell in code_cells(model["content"]):
        cell["outputs"] = [output for output in cell["outputs"] if PROGRESS_BAR not in output.get("data", {})]
    as_in_git(model["content"], Path(contents_manager.root_dir)/path)


class Lessons(AsyncLargeFileManager):
    "Hands out notebooks with the metadata that JupyterLab would put in, which it then takes for unmodified; saves them without."

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.register_pre_save_hook(before_saving)

    async def get(self, *args, **kwargs) -> dict:
        model = await super().get(*args, **kwargs)
        if model["type"] == "notebook" and model["content"] and model["content"].metadata.get("kernelspec", {}).get("name") == "python3":
            model["content"].metadata.kernelspec.display_name = get_kernel_spec("python3").display_name
            model["content"].metadata.language_info = IPythonKernel.language_info
        return model


def main() -> None:
    os.environ |= {name: value for name, value in ENVIRONMENT.items() if name not in OWN}
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    (LAB/"settings").mkdir(parents=True, exist_ok=True)
    (LAB/"settings"/"overrides.json").write_text(json.dumps(NO_NEWS))
    if not (LAB/"workspaces").exists():  # the first time: from then on it is how the learner left it
        workspace = {"data": {"layout-restorer:data": {"left": SIDEBAR}}, "metadata": {"id": "default"}}
        WorkspacesManager(str(LAB/"workspaces")).save("default", json.dumps(workspace))
    flags = ["--allow-root", f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/nbs/00_setup.ipynb",
             f"--LabApp.workspaces_dir={LAB/'workspaces'}", "--ServerApp.contents_manager_class=lab.Lessons"]
    # Not the login shell that Jupyter may take: its profile may put the PATH back.
    if os.name != "nt": flags.append(f"--ServerApp.terminado_settings={ {'shell_command': [os.environ.get('SHELL') or 'sh']} }")
    LabApp.launch_instance(flags + sys.argv[1:])


if __name__ == "__main__": main()
