"Several processes train as one does: gradients, rows, validation, history; and a process that fails ends the rest. Forked ones are quick to start; some are started afresh."
import io
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from itertools import count as counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import fdl.data as D
import fdl.nn as nn
from fdl import optim
from fdl.distributed import Replica, Sharded, init_process_group, launch, step
from fdl.training import epochs, fit, loss_batch
from helpers import assert_alike, seeded

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
exact = partial(assert_close, rtol=1e-12, atol=1e-12)
x, y = torch.randn(23, 6, generator=seeded(), dtype=torch.float64), torch.arange(23) % 4

count = counter()


@contextmanager
def world_of_one(tmp_path, monkeypatch):
    "This process alone, as a group."
    for name, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, LOCAL_WORLD_SIZE=1).items(): monkeypatch.setenv(name, str(value))
    hook = sys.excepthook  # torch's puts the rank before each line, once more for each group
    init_process_group(f"file://{tmp_path}/{next(count)}")
    try: yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook


@pytest.fixture
def in_worlds(tmp_path, monkeypatch, one_thread):
    "What a function returns in worlds of one (in this process), two and three."
    monkeypatch.setenv("FDL_DEVICE", "cpu")
    def run(func, *args):
        with world_of_one(tmp_path, monkeypatch): found = [func(*args)]
        return found + [launch(func, n, *args, start_method="fork") for n in (2, 3)]
    return run


def network(kind=nn, norm=False):
    torch.manual_seed(0)
    layers = [kind.Linear(6, 5), kind.ReLU(), kind.Linear(5, 4)]
    return kind.Sequential(*layers).double()


def state(model): return [t.detach().clone() for t in (*model.parameters(), *model.buffers())]


def same_everywhere(tensors):
    "Whether all ranks have the same, to the last bit."
    told = [None]*dist.get_world_size()
    dist.all_gather_object(told, tensors)
    return all(torch.equal(a, b) for other in told for a, b in zip(told[0], other, strict=True))


def loaders(n=23, batch_size=4, module=D, targets=y, **options):
    ds = D.TensorDataset(x[:n], targets[:n])
    train = module.DataLoader(ds, batch_size, shuffle=True, generator=seeded(3), **options)
    return train, D.DataLoader(ds, 2*batch_size, generator=seeded())


def numbers(history): return [[row[name] for name in row if name != "seconds"] for row in history]


def trained(loss_func, kind, make_opt, module=D, targets=y, update=step, wrap=Replica, n=23, shared=True, options={}):
    train_dl, valid_dl = loaders(n, module=module, targets=targets, **options)
    model = network(kind)
    if shared: model, train_dl = wrap(model), Sharded(train_dl)
    history = fit(3, model, loss_func, make_opt(model.parameters()), train_dl, valid_dl if wrap is Replica else None,
                  progress=False, **dict(step=update) if shared else {})
    return numbers(history), state(model), same_everywhere(state(model)) if shared else True


sgd, adamw = partial(optim.SGD, lr=0.1, momentum=0.9), partial(optim.AdamW, lr=0.01)
some_ignored = y.where(torch.arange(23) % 3 > 0, -100)
WAYS = {"plain": (nn.CrossEntropyLoss(), nn, sgd), "torch's": (torch.nn.CrossEntropyLoss(), torch.nn, partial(torch.optim.Adam, lr=0.01)),
        "torch's loader": (torch.nn.functional.cross_entropy, nn, adamw, torch.utils.data),
        "class weights": (nn.CrossEntropyLoss(torch.tensor([1, 2, 0.5, 3], dtype=torch.float64)), nn, sgd),
        "ignored": (nn.CrossEntropyLoss(), nn, sgd, D, some_ignored),
        "numbers": (nn.MSELoss(), nn, sgd, D, torch.randn(23, 4, generator=seeded(1), dtype=torch.float64)),
        "one row left": (nn.CrossEntropyLoss(), nn, sgd, D, y, step, Replica, 21)}


@pytest.mark.parametrize("way", WAYS)
def test_as_in_one_process(way, in_worlds):
    "Losses, metrics and weights, ragged last batches, ignored targets and weights of classes included; all ranks to the last bit."
    for history, weights, identical in in_worlds(trained, *WAYS[way]):
        alone = trained(*WAYS[way], shared=False)
        exact(torch.tensor(history), torch.tensor(alone[0]))
        exact(weights, alone[1])
        assert identical


def test_with_workers(in_worlds):
    *_, found = in_worlds(trained, nn.CrossEntropyLoss(), nn, sgd, D, y, step, Replica, 23, True, dict(num_workers=1))
    exact(torch.tensor(found[0]), torch.tensor(trained(nn.CrossEntropyLoss(), nn, sgd, shared=False)[0]))


def ddp_step(model, loss_func, xb, yb, opt):
    n = torch.tensor(float(len(yb)))
    total = n.clone()
    dist.all_reduce(total)
    loss = loss_func(model(xb), yb)*n/total
    opt.zero_grad()
    (loss*dist.get_world_size()).backward()
    opt.step()
    loss = loss.detach()
    dist.all_reduce(loss)
    return loss, total


@pytest.mark.parametrize("kind", [nn, torch.nn], ids=["ours", "torch"])
def test_as_torchs_ddp(kind, in_worlds):
    for ours, theirs in zip(in_worlds(trained, nn.CrossEntropyLoss(), kind, sgd, D, y, step, Replica),
                            in_worlds(trained, nn.CrossEntropyLoss(), kind, sgd, D, y, ddp_step, DistributedDataParallel)):
        exact(torch.tensor([row[1] for row in theirs[0]]), torch.tensor([row[1] for row in ours[0]]))
        exact(theirs[1], ours[1])


def rows_read(n):
    "What all ranks read in three epochs, though their seeds differ."
    torch.manual_seed(dist.get_rank())
    numbers_ = torch.arange(n)
    dl, found = Sharded(D.DataLoader(D.TensorDataset(numbers_, numbers_), 4, shuffle=True)), []
    assert len(dl) == -(-n//4)
    for epoch in range(3):
        told = [None]*dist.get_world_size()
        dist.all_gather_object(told, [[] if yb is None else yb.tolist() for _, yb in dl])
        found.append(told)
    return found


def test_each_row_once_an_epoch(in_worlds):
    for passes in in_worlds(rows_read, 13):
        flat = [[i for batches in zip(*told) for batch in batches for i in batch] for told in passes]
        assert all(sorted(rows) == list(range(13)) for rows in flat)
        assert flat[0] != flat[1] != flat[2] != flat[0]
        assert all(len(batches) == 4 for told in passes for batches in told)


class Noise(torch.utils.data.Dataset):
    "Items that are drawn in the worker."
    def __len__(self): return 14
    def __getitem__(self, i): return torch.rand(()), i


def drawn():
    "What all ranks draw and read in two epochs: each item's noise, and the numbers of rows with and without targets."
    torch.manual_seed(0)
    dl, told = Sharded(D.DataLoader(Noise(), 4, num_workers=1, generator=seeded())), [None]*dist.get_world_size()
    dist.all_gather_object(told, [(xb.tolist(), yb is None) for _ in range(2) for xb, yb in dl])
    return told


def test_noise_is_new_on_each_rank_and_in_each_epoch(one_thread):
    told = launch(drawn, 3, start_method="fork")
    noise = [x for batches in told for xb, _ in batches for x in xb]
    assert len(set(noise)) == len(noise)
    assert [(len(xb), spare) for xb, spare in told[2]] == 2*[(1, False), (1, False), (1, False), (1, True)]


def predicted(n):
    model = Replica(network().eval()).eval()
    seen = []
    model.module[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    return model(x[:n]), seen


@pytest.mark.parametrize("n", [1, 2, 7])
def test_predictions_of_all_rows(n, in_worlds):
    for k, (preds, seen) in enumerate(in_worlds(predicted, n), 1):
        exact(preds, network()(x[:n]).detach())
        assert not preds.requires_grad and seen == [-(-n//k)]


def every_second(): return Replica(nn.Lambda(lambda x: x[:, ::2])).eval()(x[:7])


def test_predictions_with_gaps_in_memory(in_worlds, monkeypatch):
    gather = dist.all_gather
    def strict(parts, preds):
        assert preds.is_contiguous()                                             # NCCL asks for that, gloo does not
        gather(parts, preds)
    monkeypatch.setattr(dist, "all_gather", strict)
    for preds in in_worlds(every_second): exact(preds, x[:7, ::2])


def started():
    torch.manual_seed(dist.get_rank())
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(3))
    module[1].running_mean.fill_(dist.get_rank())
    model = Replica(module)
    return same_everywhere(state(model)), model.module[1].running_mean.sum().item()


def test_replicas_start_as_rank_0(in_worlds):
    for identical, mean in in_worlds(started): assert identical and mean == 0


class Summed(nn.Module):
    def __init__(self): self.linear = nn.Linear(6, 4).double()
    def forward(self, fields): return self.linear(fields["x"])


def test_inputs_that_are_no_tensor(in_worlds):
    def run():
        torch.manual_seed(0)
        model = Replica(Summed())
        return model.eval()({"x": x}), model.module.linear(x)
    for ours, whole in in_worlds(run): assert_alike(ours, whole)


def normed():
    torch.manual_seed(0)
    model = Replica(nn.Sequential(nn.BatchNorm2d(1)).double())
    rank, world, images = dist.get_rank(), dist.get_world_size(), torch.randn(6, 1, 2, 2, generator=seeded(), dtype=torch.float64)
    mine = images[rank::world]
    loss, weight = step(model, lambda preds, target: preds.square().mean(), mine, mine, optim.SGD(model.parameters(), lr=0.1))
    return same_everywhere(state(model)), model.module[0].running_mean, images, weight.item()


def test_running_statistics_are_rank_0s(in_worlds):
    for k, (identical, mean, images, weight) in enumerate(in_worlds(normed), 1):
        assert identical and weight == 6
        exact(mean, 0.1*images[0::k].mean().reshape(1))


def counted():
    "A step in which only rank 0 has rows that count."
    model, rank = network(), dist.get_rank()
    opt, target = optim.SGD(model.parameters(), lr=0.1), y[:4] if rank == 0 else torch.full((4,), -100)
    found = step(model, torch.nn.functional.cross_entropy, x[:4], target, opt)
    return found, state(model), [p.grad for p in model.parameters()]


def test_what_counts_on_one_rank_only(in_worlds):
    model = network()
    alone = loss_batch(model, torch.nn.functional.cross_entropy, x[:4], y[:4], optim.SGD(model.parameters(), lr=0.1))
    for (loss, weight), weights, grads in in_worlds(counted):
        exact(loss, alone[0])
        assert weight == 4 and weight.ndim == loss.ndim == 0
        exact(weights, state(model))
        exact(grads, [p.grad for p in model.parameters()])


def half_precision():
    model = nn.Linear(6, 4).bfloat16()
    return step(model, torch.nn.functional.cross_entropy, x[:1].expand(257, 6).bfloat16(), torch.zeros(257, dtype=torch.int64), optim.SGD(model.parameters(), lr=0.1))


def test_a_weight_is_not_rounded(in_worlds):
    for k, (loss, weight) in enumerate(in_worlds(half_precision), 1): assert weight == 257*k


def frozen():
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    step(model, torch.nn.functional.cross_entropy, x, y, optim.SGD(model.parameters(), lr=0.1))
    return torch.equal(model[0].weight, before), model[0].weight.grad is None


def test_frozen_parameters_stay(in_worlds):
    assert in_worlds(frozen) == [(True, True)]*3


def part(first, last, saved=None):
    "Epochs from `first` on, from what an earlier run saved."
    module, (train_dl, valid_dl) = network(), loaders()
    opt = adamw(module.parameters())
    if saved:
        module.load_state_dict(saved[0])
        opt.load_state_dict(saved[1])
        train_dl.generator.set_state(saved[2])
    rows = epochs(last, Replica(module), nn.CrossEntropyLoss(), opt, Sharded(train_dl), valid_dl, step=step, start=first)
    return numbers(rows), (module.state_dict(), opt.state_dict(), train_dl.generator.get_state())


def test_resumed_in_another_number_of_processes(in_worlds):
    whole = trained(nn.CrossEntropyLoss(), nn, adamw, shared=False)
    for history, saved in in_worlds(part, 0, 1):
        for more, (weights, *_) in in_worlds(part, 1, 3, saved):
            exact(torch.tensor(history + more), torch.tensor(whole[0]))
            exact(list(weights.values()), whole[1])


# Starting and ending.

def who(*more): return dist.get_rank(), dist.get_world_size(), os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"], torch.get_num_threads(), *more


def test_a_fresh_process():
    assert launch(who, 2, "a") == (0, 2, "0", "2", 1, "a")


@pytest.mark.parametrize("device, gpus, chosen, backend", [("cpu", 0, [], "gloo"), ("cuda", 3, [0], "gloo"), ("cuda", 4, [3], None), ("cuda", 8, [3], None), ("cpu", 4, [], None)])
def test_a_gpu_of_its_own(device, gpus, chosen, backend, monkeypatch):
    "With GPUs that are not there: what torch is told on rank 7, the last of four on the second machine."
    for name, value in dict(RANK=7, LOCAL_RANK=3, WORLD_SIZE=8, LOCAL_WORLD_SIZE=4).items(): monkeypatch.setenv(name, str(value))
    calls = []
    monkeypatch.setattr("fdl.distributed.default_device", lambda: torch.device(device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **options: calls.append((args, options)))
    monkeypatch.setattr(dist, "barrier", lambda: calls.append("all are here"))
    init_process_group()
    assert calls == [*chosen, ((backend, None), dict(rank=7, world_size=8)), "all are here"]


def surroundings():
    time.sleep(dist.get_rank()/5)                                                # rank 0 is the first to be done
    return dist.get_rank(), torch.get_num_threads(), os.environ["FDL_TEST"]


def test_a_copy_of_this_process(monkeypatch, tmp_path):
    leave = dist.destroy_process_group
    def note():
        (tmp_path/f"{dist.get_rank()}").touch()
        leave()
    monkeypatch.setattr(dist, "destroy_process_group", note)
    monkeypatch.setenv("FDL_TEST", "handed on")
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try: assert launch(surroundings, 3, start_method="fork") == (0, 1, "handed on")
    finally: torch.set_num_threads(threads)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2"}            # each has left its group


def test_waiting_costs_nothing(one_thread):
    start = time.thread_time()
    assert launch(lambda: time.sleep(dist.get_rank()), 2, start_method="fork") is None
    assert time.thread_time() - start < 0.3


class SlowStream(io.StringIO):
    def flush(self): time.sleep(1)


def fail_in_turn(file):
    if dist.get_rank() == 1: sys.stdout = SlowStream()
    else:
        sys.stdout = open(file, "w")
        print("so far")
        time.sleep(0.3)
    raise ValueError(f"this is {dist.get_rank()}")


def test_the_first_failure_is_told_and_what_was_printed_is_kept(tmp_path, one_thread):
    "Rank 1 fails first, and takes longer to go."
    with pytest.raises(RuntimeError, match="(?s)rank 1 failed.*this is 1$"): launch(fail_in_turn, 2, tmp_path/"printed", start_method="fork")
    assert (tmp_path/"printed").read_text() == "so far\n"


def fail_alone(rank):
    if dist.get_rank() == rank: raise ValueError("the others do not notice")
    time.sleep(15)


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_work_on_are_ended(rank, one_thread):
    before, start = children(), time.monotonic()
    with pytest.raises(RuntimeError, match=f"(?s)rank {rank} failed.*do not notice"): launch(fail_alone, 3, rank, start_method="fork")
    assert time.monotonic() - start < 10
    assert children() <= before


def trouble(how):
    if dist.get_rank() == 1: how()
    dist.all_reduce(torch.ones(1))
    time.sleep(60)


def an_error(): return {}["lost"]
def leaves(): sys.exit(0)
def ends(): os._exit(3)
def ends_as_with_an_error(): os._exit(1)
def is_killed(): os.kill(os.getpid(), signal.SIGKILL)


def children():
    "The processes that this one has started and that live."
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try: fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError: continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z": found.add(int(path.parent.name))
    return found


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("how, words", [(an_error, "rank 1 failed.*KeyError: 'lost'"), (leaves, "rank 1 failed.*SystemExit: 0"), (ends, "rank 1 .*exit code 3"),
                                        (ends_as_with_an_error, "rank 1 .*exit code 1"), (is_killed, "rank 1 .*SIGKILL")])
def test_a_rank_that_fails_ends_all(how, words, n):
    before, start = children(), time.monotonic()
    with pytest.raises(RuntimeError, match=f"(?s){words}"): launch(trouble, n, how, start_method="fork")
    assert time.monotonic() - start < 10
    assert children() <= before


def test_ctrl_c_ends_all():
    before = children()
    def press(signum, frame): raise KeyboardInterrupt
    old = signal.signal(signal.SIGALRM, press)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(KeyboardInterrupt): launch(time.sleep, 2, 60, start_method="fork")
    finally: signal.signal(signal.SIGALRM, old)
    assert children() <= before


def test_functions_that_cannot_be_imported(monkeypatch):
    with pytest.raises(ValueError, match="<lambda>.*start_method"): launch(lambda: 1, 2)
    def local(): return 1
    with pytest.raises(ValueError, match="local"): launch(local, 2)
    namespace = {"__name__": "__main__"}
    exec("def mine(): return 1", namespace)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ValueError, match="mine is defined in a notebook"): launch(namespace["mine"], 2)
    class Started(Exception): pass
    def starts(*args, **options): raise Started
    monkeypatch.setattr("fdl.distributed.start_processes", starts)
    with pytest.raises(Started): launch(who, 2)                                   # from a module, in a notebook
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)
    with pytest.raises(Started): launch(namespace["mine"], 2)


def run_under_torchrun(script, n, *args, **more):
    return subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), str(script), *args],
                          cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "FDL_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, **more)


def test_torchrun(tmp_path):
    script = tmp_path/"script.py"
    script.write_text("import torch, torch.distributed as dist\nfrom fdl.distributed import init_process_group\ninit_process_group()\n"
                      "t = torch.ones(1)\ndist.all_reduce(t)\nif dist.get_rank() == 0: print('sum', t.item())\ndist.destroy_process_group()\n")
    done = run_under_torchrun(script, 2)
    assert done.returncode == 0 and "sum 2.0" in done.stdout, done.stderr[-2000:]


@pytest.mark.weekly
def test_torchrun_of_a_rank_that_fails(tmp_path):
    script = tmp_path/"script.py"
    script.write_text("import time, torch, torch.distributed as dist\nfrom fdl.distributed import init_process_group\ninit_process_group()\n"
                      "if dist.get_rank() == 1: {}['lost']\ndist.all_reduce(torch.ones(1))\ntime.sleep(60)\n")
    done = run_under_torchrun(script, 2, timeout=50)
    assert done.returncode and "KeyError: 'lost'" in done.stderr


@pytest.mark.weekly
def test_the_training_script_under_torchrun():
    done = run_under_torchrun("scripts/train.py", 2, "--valid", "--dtype", "float32")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("seconds of training") == 1 and "accuracy 9" in done.stdout
