"""CapturedStep where there is no CUDA device: a graph that is recorded on the CPU, operation by operation, and replayed on the same memory.

It keeps to what a CUDA graph does: nothing is computed while it is recorded, Python's numbers are taken over as they were, a value
cannot be read back, and a random operation draws anew at each replay.
"""
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fdl import nn, optim
from fdl.data import DataLoader, TensorDataset
from fdl.functional import cross_entropy
from fdl.optim.lr_scheduler import OneCycleLR
from fdl.training import CapturedStep, fit, loss_batch


class Graph(TorchDispatchMode):
    "The operations that are called inside it, and the memory of before put back at its end."
    def __init__(self):
        super().__init__()
        self.calls, self.before, self.made, self.replays = [], {}, set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default: raise RuntimeError("operation not permitted when stream is capturing")
        for t in tree_leaves((args, kwargs)):
            if isinstance(t, torch.Tensor) and id(t) not in self.made: self.before.setdefault(id(t), (t, t.detach().clone()))
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        self.made |= {id(t) for t in tree_leaves(out) if id(t) not in self.before}
        return out

    def __exit__(self, *error):
        super().__exit__(*error)
        with torch.no_grad():
            for t, was in self.before.values(): t.detach().copy_(was)

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs))):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr(): old.detach().copy_(new)


@pytest.fixture
def graphs(monkeypatch, one_thread):
    "The graphs recorded, on a machine that seems to have CUDA."
    made = []
    stream = lambda: SimpleNamespace(wait_stream=lambda other: None)
    def new():
        made.append(Graph())
        return made[-1]
    monkeypatch.setattr(CapturedStep, "fits", lambda self, *batch: all(isinstance(t, torch.Tensor) for t in batch))
    for name, fake in dict(CUDAGraph=new, graph=lambda graph, stream: graph, Stream=stream, current_stream=stream, stream=lambda s: nullcontext()).items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return made


class Adam(torch.optim.Adam):
    "torch's with its count in a tensor; `capturable` itself wants an accelerator, so the rule stands here once more."
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                s = self.state[p]
                if not s: s.update(step=torch.zeros(()), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
                s["step"] += 1
                s["exp_avg"].lerp_(p.grad, 1 - b1), s["exp_avg_sq"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                size = (s["exp_avg_sq"]/(1 - b2**s["step"])).sqrt().add_(group["eps"])
                p.sub_(s["exp_avg"]/(1 - b1**s["step"])/size*group["lr"])


def run(step, n=230, lib=nn, epochs=3, dropout=0., **options):
    torch.manual_seed(0)
    x = torch.randn(n, 5)
    model = lib.Sequential(lib.Linear(5, 8), lib.ReLU(), lib.Dropout(dropout), lib.Linear(8, 3))
    opt = Adam(model.parameters(), lr=0.01)
    dl = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 50, shuffle=True, generator=torch.Generator().manual_seed(1))
    schedule = OneCycleLR(opt, 0.05, epochs=epochs, steps_per_epoch=len(dl), cycle_momentum=False)
    losses = []
    def noted(*batch):
        losses.append(step(*batch))
        return losses[-1]
    history = fit(epochs, model, cross_entropy, opt, dl, scheduler=schedule, step=noted, progress=False, **options)
    return history, torch.stack([loss for loss, _ in losses]), list(model.parameters()), opt


@pytest.mark.parametrize("lib", [nn, torch.nn])
def test_equals_the_plain_step(graphs, lib):
    plain, captured = run(loss_batch, lib=lib), run(CapturedStep(), lib=lib)
    assert_close(captured[1], plain[1]), assert_close(captured[2], plain[2])
    graph, = graphs
    assert graph.replays == 3*4 - 3, "four whole batches an epoch, the first three are plain, so are the short ones"
    assert captured[3].param_groups[0]["lr"] == plain[3].param_groups[0]["lr"], "the rate is a number again"
    for a, b in zip(captured[0], plain[0]): assert_close(a["train_loss"], b["train_loss"])


def test_losses_do_not_change_later(graphs):
    _, losses, *_ = run(CapturedStep())
    assert len(set(losses.tolist())) == len(losses)


def test_random_layers_draw_anew(graphs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(40, 3))
    opt, step = Adam(model.parameters(), lr=0.), CapturedStep(warmup=1)
    x, y = torch.ones(8, 40), torch.arange(8) % 3
    losses = [step(model, cross_entropy, x, y, opt)[0].item() for _ in range(9)]
    assert graphs[0].replays == 8 and len(set(losses)) == 9


def test_recorded_anew_for_other_parts(graphs):
    step = CapturedStep(warmup=1)
    for _ in range(2):
        model = nn.Linear(5, 3)
        opt, x, y = Adam(model.parameters()), torch.randn(8, 5), torch.arange(8) % 3
        for _ in range(3): step(model, cross_entropy, x, y, opt)
    assert [graph.replays for graph in graphs] == [2, 2]
    opt.load_state_dict(opt.state_dict())     # a state of other tensors
    before = model.weight.clone()
    for _ in range(2): step(model, cross_entropy, x, y, opt)
    assert [graph.replays for graph in graphs] == [2, 2, 1] and not before.equal(model.weight)


def test_recorded_anew_in_another_mode(graphs):
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(40, 3))
    opt, step = Adam(model.parameters(), lr=0.), CapturedStep(warmup=1)
    x, y = torch.ones(8, 40), torch.arange(8) % 3
    for training in (True, False):
        model.train(training)
        losses = [step(model, cross_entropy, x, y, opt)[0].item() for _ in range(4)]
        assert len(set(losses)) == (4 if training else 1)
    assert [graph.replays for graph in graphs] == [3, 3]


def refused(opt_of, loss=cross_entropy, match="reads a value back"):
    model = nn.Linear(5, 3)
    opt, step = opt_of(model.parameters()), CapturedStep(warmup=1)
    batch = model, loss, torch.randn(8, 5), torch.arange(8) % 3, opt
    step(*batch)
    before, lr = model.weight.clone(), opt.param_groups[0]["lr"]
    with pytest.raises(RuntimeError, match=match): step(*batch)
    assert before.equal(model.weight) and opt.param_groups[0]["lr"] == lr and isinstance(lr, float)


@pytest.mark.parametrize("opt_of", [lambda p: optim.SGD(p, 0.1), lambda p: optim.Adam(p), lambda p: torch.optim.SGD(p, 0.1)])
def test_optimizers_that_read_their_rate(graphs, opt_of): refused(opt_of)

def test_a_step_that_reads_a_value_back(graphs):
    def loss(preds, y):
        value = cross_entropy(preds, y)
        return value if value.item() > 0 else 2*value
    refused(Adam, loss, "not permitted")


def test_other_settings_may_not_change(graphs):
    model = nn.Linear(5, 3)
    opt, step = Adam(model.parameters()), CapturedStep(warmup=1)
    batch = model, cross_entropy, torch.randn(8, 5), torch.arange(8) % 3, opt
    for _ in range(2): step(*batch)
    opt.param_groups[0]["betas"] = (0.5, 0.9)
    with pytest.raises(ValueError, match=r"only lr may change.*0\.999.*0\.5"): step(*batch)


def test_without_cuda_it_is_the_plain_step():
    plain, captured = run(loss_batch, dropout=0.3), run(CapturedStep(), dropout=0.3)
    assert plain[1].equal(captured[1]) and all(a.equal(b) for a, b in zip(plain[2], captured[2]))


def test_other_batches_go_plainly(graphs):
    model, x = nn.Linear(5, 3), torch.randn(8, 5)
    opt, step = Adam(model.parameters()), CapturedStep(warmup=1)
    first = lambda preds, y: cross_entropy(preds, y["y"])
    for _ in range(4): step(model, first, x, {"y": torch.arange(8) % 3}, opt)
    assert not graphs
