"""Makes `.venv` and installs `fdl` into it, with the extras named on the command line.

    python scripts/setup_env.py lab test

Quick when there is nothing to do. The file parses on Python 3.6, so that an old one gets a sentence
and not a SyntaxError.
"""
import sys

if sys.version_info < (3, 10):
    sys.exit("fdl needs Python 3.10 or newer, and %s is Python %d.%d.\n"
             "Install a newer one and name it, for example:  make lab PYTHON=python3.12"
             % (sys.executable, sys.version_info[0], sys.version_info[1]))

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT/".venv"
VENV_PYTHON = VENV/("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV/"fdl-setup.json"
# FDL_CONSTRAINTS names another constraints file; set but empty, it means the newest releases of everything.
CONSTRAINTS = os.environ.get("FDL_CONSTRAINTS", str(ROOT/"constraints.txt"))

NO_VENV = """This Python ({python}) has no `{module}` module, so it cannot make a virtual environment.
On Debian or Ubuntu:  sudo apt install python3-venv
Elsewhere, install Python from python.org and name it:  make lab PYTHON=/path/to/python3"""
NO_NETWORK = """
The package index could not be reached. Check the network connection (and the proxy, if you use one),
then run the same command again: what has been downloaded is kept."""
PIP_FAILED = """
pip could not install the packages; its own message stands above. Mend that and run the same command
again. `make clean` removes .venv, for a fresh start."""


def fingerprint() -> str:
    "Changes when a file that decides what is installed changes."
    files = [ROOT/"settings.ini", ROOT/"setup.py", ROOT/"pyproject.toml"] + ([Path(CONSTRAINTS)] if CONSTRAINTS else [])
    return hashlib.sha256("\0".join([CONSTRAINTS, *(f.read_text(encoding="utf-8") for f in files)]).encode()).hexdigest()


def last_time(place: str) -> dict:
    "What the last setting-up noted, if it was of this Python in this place: a virtual environment cannot be moved."
    stamp = json.loads(STAMP.read_text()) if STAMP.exists() and VENV_PYTHON.exists() else {}
    return stamp if stamp.get("place") == place else {"extras": []}


def pip(*args: str) -> None:
    "Runs pip in the new environment, showing its progress; ends with a sentence if it fails."
    constraint = ["--constraint", CONSTRAINTS] if CONSTRAINTS else ["--upgrade"]
    command = [str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--retries", "2", *constraint, *args]
    # Without setuptools' boxed warning that fdl is installed from where it lies: so it is meant.
    others = os.environ.get("PYTHONWARNINGS")
    quiet = ",".join(filter(None, [others, "ignore:Editable installation"]))
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": quiet},
                               stderr=subprocess.PIPE, text=True, errors="replace")
    complaints = ""
    for line in process.stderr:
        complaints += line
        sys.stderr.write(line)
    if process.wait() == 0: return
    offline = re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Read timed out|Network is unreachable", complaints)
    sys.exit(NO_NETWORK if offline else PIP_FAILED)


def main(extras: set[str]) -> None:
    "Brings `.venv` up to date with the project's files."
    want, place = fingerprint(), f"{sys.version} {ROOT}"
    stamp = last_time(place)
    have = set(stamp["extras"])
    if have and extras <= have and stamp["fingerprint"] == want: return
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None: sys.exit(NO_VENV.format(python=sys.executable, module=module))
    if not have:
        print("Setting up .venv (the first time this downloads PyTorch and takes some minutes) ...", flush=True)
        shutil.rmtree(VENV, ignore_errors=True)
        # In a process of its own: if ensurepip fails there, its message is one that can be explained.
        if subprocess.run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(VENV)]).returncode:
            sys.exit(NO_VENV.format(python=sys.executable, module="ensurepip"))
    pip("pip", "setuptools", "wheel")
    wanted = sorted(extras | have - {"base"})
    pip("--no-build-isolation", "--editable", f".[{','.join(wanted)}]" if wanted else ".")
    STAMP.write_text(json.dumps({"place": place, "fingerprint": want, "extras": ["base", *wanted]}))
    print(f".venv is ready. To use it in your own shell:  {'.venv/Scripts/activate' if os.name == 'nt' else 'source .venv/bin/activate'}")


if __name__ == "__main__":
    try: main(set(sys.argv[1:]))
    except KeyboardInterrupt: sys.exit("\nStopped. Run the same command again to go on.")
