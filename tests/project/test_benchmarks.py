"The benchmarks' own machinery: what it times, in which order, what it makes of it. No speed is asserted here."
import json
import re
import subprocess
import sys
from functools import partial
from importlib.metadata import version

import pytest
import torch

from course import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks import peers, recipe, report, rows, run  # noqa: E402
from benchmarks.measure import Row, at_least, at_most, in_turn, per_call, summary  # noqa: E402
from fdl import data as fdl_data  # noqa: E402


class Clock:
    "A clock that moves only when it is told to."
    now = 0.0

    def __call__(self) -> float: return self.now

    def work(self, seconds: float): self.now += seconds


def test_in_turn():
    clock, order, checked = Clock(), [], []

    def side(name, seconds):
        def run():
            order.append(name)
            clock.work(seconds*len(order))
            return name.upper()
        clock.work(100)  # making a run is not timed
        return run

    found = in_turn({"a": partial(side, "a", 1), "b": partial(side, "b", 10)}, 3, lambda *args: checked.append(args), clock=clock)
    assert "".join(order) == "ba" "ab" "ba" "ab"
    assert found == {"a": [3, 6, 7], "b": [40, 50, 80]}, "the first round warms up and is dropped"
    assert checked[:2] == [("b", "B"), ("a", "A")] and len(checked) == 8


def test_own_clock():
    assert in_turn({"a": lambda: lambda: 0.25}, 2, own_clock=True) == {"a": [0.25, 0.25]}


def test_a_failed_run_leaves_the_collector_on():
    import gc

    with pytest.raises(ZeroDivisionError): in_turn({"a": lambda: lambda: 1/0}, 1)
    assert gc.isenabled()


def test_per_call():
    counts = {"a": 0, "b": 0}
    def call(name): counts[name] += 1
    found = per_call({name: partial(call, name) for name in counts}, 2, at_least=1e-4)
    assert counts["a"] > counts["b"] > 3 and all(0 < t < 1e-4 for times in found.values() for t in times)


def test_ratios_are_paired():
    seconds = {"fdl": [1., 2., 9.], "torch": [2., 8., 9.]}
    row = at_most(0.4, "fdl over torch", seconds, "fdl", "torch")
    assert (row.value, row.low, row.high) == (0.5, 0.375, 0.75) and row.seconds == {"fdl": 2, "torch": 8} and row.met is False
    assert row.effort == pytest.approx(1.25)
    row = at_least(2, "fdl beside torch", seconds, "fdl", "torch")
    assert row.value == 2 and row.met is True and row.effort == 1
    assert at_most(None, "no target", seconds, "fdl", "torch").met is None
    assert summary("once", "at most", 1, [3]).high == 3


def test_slower():
    before = {name: Row(name, sense, 1, 2.0) for name, sense in (("a", "at most"), ("b", "at most"), ("c", "at least"), ("d", "at least"))}
    assert report.slower([Row("a", "at most", 1, 2.2), Row("c", "at least", 1, 2/1.1), Row("new", "at most", 1, 99.)], before) == []
    lines = report.slower([Row("b", "at most", 1, 2.5), Row("d", "at least", 1, 1.6), Row("a", "at most", 1, note="not installed")], before)
    assert [line[0] for line in lines] == list("bda") and all("25% slower" in line for line in lines[:2]) and "not installed" in lines[2]


def test_report(tmp_path):
    found = [Row("fast", "at least", 2, 3., 2.9, 3.1, seconds={"fdl": 0.25, "torch": 0.75}, group="fit"), Row("slow", "at most", 0.9, 1.4, 1.3, 1.5, group="fit"),
             Row("shown", "at most", None, 7., 7., 7., group="loader"), Row("peer", "at least", 2, note="could not be started", group="loader")]
    here = report.machine(1)
    report.write(found, here, tmp_path)
    text = (tmp_path/"results.md").read_text(encoding="utf-8")
    assert "1 of 2 targets met" in text and f"torch {version('torch')}," in text and "## loader" in text
    assert "| fast | at least 2 times | **3** | 2.9 to 3.1 | yes | fdl 250 ms, torch 750 ms |" in text
    assert "| slow | at most 0.9 times | **1.4** | 1.3 to 1.5 | **no** |" in text and "could not be started" in text
    assert (tmp_path/"results.png").read_bytes().startswith(b"\x89PNG")
    again, machine = report.load((tmp_path/"results.json").read_text(encoding="utf-8"))
    assert list(again.values()) == found and machine == here
    assert report.committed(tmp_path/"results.json")[0] == again, "without git, the file as it is"


@pytest.mark.parametrize("seconds, shown", [(250, "250 s"), (1.234, "1.23 s"), (0.012, "12 ms"), (3.4e-5, "34 µs"), (5e-9, "5 ns")])
def test_duration(seconds, shown): assert report.duration(seconds) == shown


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    "Images that are easy to tell apart, and their labels; the last batch is not full."
    y = torch.arange(6400 - 32) % 10
    return 0.3*torch.randn(10, 784)[y] + 0.1*torch.randn(len(y), 784), y


@pytest.mark.parametrize("side", [peers.bare, peers.bare_shuffled, peers.torch_loop, peers.miniai_style, peers.ours, rows.hand_network], ids=lambda f: f.__name__)
def test_sides_train(digits, side, one_thread, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert rows.epochs({"side": side}, *digits, 1)["side"][0] > 0


def test_sides_that_do_not_train(digits):
    model, check = peers.network(), peers.check_trained(*digits)
    with pytest.raises(RuntimeError, match="99 updates in an epoch of 100"): check("lazy", (model, 99))
    with pytest.raises(RuntimeError, match="did not learn"): check("stuck", (model, 100))


def test_the_bar_must_be_drawn(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with pytest.raises(RuntimeError, match="no progress bar"), peers.shown(): pass
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with pytest.raises(RuntimeError, match="unset TQDM_DISABLE"), peers.shown(): pass


def test_a_peer_that_is_missing_is_reported(digits, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(rows, "mnist", lambda: digits)
    for name in ("skorch", "lightning", "fastai", "keras"): monkeypatch.setitem(sys.modules, name, None)
    found = rows.trainers(1)
    assert len(found) == 4 and all(row.value is None and "could not be started: ModuleNotFoundError" in row.note for row in found)


def test_sizes_of_networks():
    assert 0.9e6 < sum(p.numel() for p in rows.million().parameters()) < 1.1e6
    assert sum(p.numel() for p in recipe.example().parameters()) == 320 + 18_496 + 1_179_776 + 1_290


def test_every_peer_is_pinned():
    wanted = re.search(r"^bench_requirements = (.*)$", (ROOT/"settings.ini").read_text(encoding="utf-8"), re.M)[1].split()
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT/"constraints.txt").read_text(encoding="utf-8"), re.M))
    assert not {re.match(r"[\w-]+", name)[0] for name in wanted} - pinned


def test_every_group_is_there():
    import importlib

    for group, module in run.GROUPS.items(): assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), group))


def test_quick_run(tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "convolution", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row, = json.loads((tmp_path/"results.json").read_text(encoding="utf-8"))["rows"]
    assert row["value"] > 0 and row["group"] == "convolution" and row["name"] in done.stdout and row["name"] in (tmp_path/"results.md").read_text(encoding="utf-8")
    assert (tmp_path/"results.png").exists()
    wrong = subprocess.run([*command[:3], "warp"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "there is no group warp" in wrong.stderr


def test_the_tables_hold_all_groups():
    held = [group for groups in run.TABLES.values() for group in groups]
    assert sorted(held) == sorted(run.GROUPS)


def test_a_card_has_its_own_table(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(run, "in_a_process", lambda group, rounds, threads: [Row("quick", "at most", 1, 0.5, 0.5, 0.5, group=group)])
    assert run.main(["gpu"], False, 2, 1, tmp_path, False) == 0
    text = (tmp_path/"gpu"/"results.md").read_text(encoding="utf-8")
    assert "on one a card. 1 of 1 targets met" in text and "](../../README.md)" in text and not (tmp_path/"results.md").exists()
    assert report.load((tmp_path/"gpu"/"results.json").read_text(encoding="utf-8"))[1]["card"] == "a card"


def test_the_recipe_is_that_of_make_train(monkeypatch, one_thread):
    "The rows of `make train` come from scripts/train.py as it is, here with a few images."
    import train

    y = torch.arange(640) % 10
    few = fdl_data.TensorDataset(torch.randn(640, 1, 28, 28), y)
    monkeypatch.setattr(train, "new_sets", lambda device, valid: (few, few))
    found = {row.name: row for row in recipe.recipe(1)}
    assert 0 < found["make train in float32: seconds of training"].value < 60
    assert found["make train in float32: seeds that reach 99.0% of the test set"].value == 0
