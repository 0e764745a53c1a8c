"The versions that settings.ini allows: what constraints.txt pins, and what the weekly job with the lowest takes."
import os
import re
import subprocess
from configparser import ConfigParser

import pytest
import yaml
from packaging.requirements import Requirement

from course import ROOT

CONFIG = ConfigParser()
CONFIG.read(ROOT/"settings.ini", encoding="utf-8")
META = CONFIG["DEFAULT"]
STATED = sorted({each for key in META if key.endswith("requirements") for each in META[key].split()})


@pytest.mark.parametrize("stated", STATED)
def test_pinned_in_its_range(stated):
    "Each requirement states a lower bound, and constraints.txt pins a release in that range."
    wanted = Requirement(stated)
    assert any(part.operator == ">=" for part in wanted.specifier), f"{stated} has no lower bound"
    text = (ROOT/"constraints.txt").read_text(encoding="utf-8")
    pins = re.findall(rf"^{re.escape(wanted.name)}==([^ \n]+)", text, re.M)
    assert pins and all(pin in wanted.specifier for pin in pins), f"{stated}, pinned: {pins}"


@pytest.mark.skipif(os.name != "posix", reason="runs a step of the workflow in a POSIX shell")
def test_lowest_job(tmp_path):
    "It resolves for the oldest Python, holds the resolver to the bounds, and tests what was found."
    workflow = (ROOT/".github"/"workflows"/"ci.yml").read_text(encoding="utf-8")
    _, python, take, test = yaml.safe_load(workflow)["jobs"]["lowest"]["steps"]
    assert python["with"]["python-version"] == META["min_python"]
    (tmp_path/"python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> "$RUNNER_TEMP/calls"\n')
    (tmp_path/"python").chmod(0o755)
    env = os.environ | {"RUNNER_TEMP": str(tmp_path), "GITHUB_ENV": str(tmp_path/"env"),
                        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-e", "-c", take["run"]], cwd=ROOT, env=env, check=True)
    calls = (tmp_path/"calls").read_text().split("\n")
    option = dict(zip(calls, calls[1:]))
    assert "--all-extras" in calls and option["--resolution"] == "lowest-direct"
    with open(option["--constraints"]) as bounds:
        assert sorted(set(bounds.read().split())) == [each.replace(">=", "==") for each in STATED]
    assert (tmp_path/"env").read_text() == f"FDL_CONSTRAINTS={option['--output-file']}\n"
    assert test["run"].startswith("make test")
