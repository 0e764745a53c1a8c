"""Trains the course's fast network on MNIST: 99% of the test set after one pass over the images.

Lesson 19 builds the recipe, ingredient by ingredient, on the validation set; `--valid` judges it
there, as the lesson does.
Without it the network trains on all 60,000 training and validation images, and the test set is
used once, at the end. The loss of every batch and the worst mistakes are saved as pictures in
runs/. Ctrl-C ends the training early; what was learned until then is still tested and drawn. With
`--checkpoint DIR` the run is saved there now and then, and at Ctrl-C; the same command goes on
where it stopped, and ends as if it had not been.

Several processes share the work when torchrun starts them:
torchrun --standalone --nproc-per-node 2 scripts/train.py
"""
import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import matplotlib

matplotlib.use("Agg")  # draws into files: needs no screen
import matplotlib.pyplot as plt
import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from torch import Tensor

import fdl.nn
from fdl.checkpoint import Checkpoint
from fdl.core import default_device, set_seed
from fdl.data import DataLoader, TensorDataset
from fdl.datasets import load_mnist
from fdl.distributed import Replica, Sharded, init_process_group, step
from fdl.functional import cross_entropy
from fdl.optim import Adam
from fdl.optim.lr_scheduler import OneCycleLR
from fdl.plots import plot_mistakes
from fdl.training import epochs as plain_epochs
from fdl.training import CapturedStep, evaluate, fit, loss_batch

PICTURES = Path(__file__).resolve().parent.parent/"runs"

# Lesson 19's full recipe; bfloat16, channels last and scaled inputs stand where they are used.
RECIPE = dict(epochs=1, batch_size=256, rate=0.01, betas=(0.7, 0.9), smoothing=0.1)


def is_fast_in_bfloat16(device: torch.device) -> bool:
    "Whether the device has instructions for bfloat16; asked of torch."
    if device.type == "cuda": return torch.cuda.is_bf16_supported(including_emulation=False)
    has = getattr(torch.cpu, "get_capabilities", dict)()  # a torch that is older cannot say
    return device.type == "cpu" and any("bf16" in name and there for name, there in has.items())


class Mixed(fdl.nn.Module):
    "`model`, with its products in bfloat16 if `bf16`; parameters and scores stay in float32."
    def __init__(self, model: torch.nn.Module | fdl.nn.Module, bf16: bool):
        self.model, self.bf16 = model, bf16

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(x).float()


def new_model(nn, bf16: bool, device: torch.device) -> Mixed:
    "The network, from the layers of the module `nn`: torch's, or this course's own."
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),                  # (n, 16, 14, 14)
        nn.Conv2d(16, 32, 3), nn.MaxPool2d(2), nn.ReLU(),                     # (n, 32, 6, 6)
        nn.Conv2d(32, 96, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),          # (n, 96, 3, 3)
        nn.Flatten(), nn.Linear(864, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
    if nn is torch.nn: model.to(memory_format=torch.channels_last)
    return Mixed(model, bf16)


def new_sets(device: torch.device, valid: bool) -> tuple[TensorDataset, TensorDataset]:
    "The images to train on and those to judge by, with mean 0 and deviation 1 over the former."
    train, *others, test = load_mnist(device=device)
    if valid: test = others[0]
    else: train = [torch.cat(pair) for pair in zip(train, *others)]
    mean, std = train[0].mean(), train[0].std()
    return tuple(TensorDataset(((x - mean)/std).view(-1, 1, 28, 28), y) for x, y in (train, test))


class Notes:
    "The loss and the learning rate of each batch, and the flags of the run they were noted in."
    def __init__(self, flags: dict): self.flags, self.losses, self.rates = flags, [], []

    def state_dict(self) -> dict:
        losses = [loss.cpu() for loss in self.losses]
        return {"flags": self.flags, "losses": losses, "rates": list(self.rates)}

    def load_state_dict(self, state: dict) -> None:
        if state["flags"] != self.flags:
            raise ValueError(f"it was started with {state['flags']}, this one with {self.flags}")
        self.losses, self.rates = state["losses"], state["rates"]


def train(ds: TensorDataset, model: Mixed, recipe: dict = RECIPE, notes: Notes | None = None,
          rows: Callable = plain_epochs, progress: bool = False) -> float:
    "Trains `model`, or goes on with it where `rows` is a checkpoint; returns the seconds."
    notes = notes or Notes({})
    epochs, peak = recipe["epochs"], recipe["rate"]
    dl = DataLoader(ds, recipe["batch_size"], shuffle=True)
    captured = next(model.parameters()).is_cuda and not dist.is_initialized()
    new_opt = partial(torch.optim.Adam, capturable=True) if captured else Adam
    opt = new_opt(model.parameters(), peak, betas=recipe["betas"])
    schedule = OneCycleLR(opt, peak, total_steps=epochs*len(dl), cycle_momentum=False)
    loss_func = partial(cross_entropy, label_smoothing=recipe["smoothing"])
    one_step = CapturedStep() if captured else loss_batch
    if dist.is_initialized(): dl, one_step = Sharded(dl), step

    def noted(*batch):
        notes.rates.append(opt.param_groups[0]["lr"])
        loss, weight = one_step(*batch)
        notes.losses.append(loss)
        return loss, weight

    start = perf_counter()
    fit(epochs, model, loss_func, opt, dl, scheduler=schedule, step=noted, epochs=rows,
        progress=progress)
    return perf_counter() - start


def draw_curves(losses: list[Tensor], rates: list[float], title: str) -> Figure:
    "The loss of every batch, with its running mean over 20, beside the learning rate."
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    losses = torch.stack([loss.cpu() for loss in losses])
    left.plot(losses, lw=0.6, alpha=0.5, label="one batch")
    if len(losses) >= 20:
        left.plot(range(19, len(losses)), losses.unfold(0, 20, 1).mean(1), label="mean of 20")
    left.set(xlabel="batch", ylabel="training loss, smoothed labels")
    left.legend(frameon=False)
    right.plot(rates)
    right.set(xlabel="batch", ylabel="learning rate")
    figure.suptitle(title)
    return figure


def save_pictures(model: Mixed, test_ds: TensorDataset, notes: Notes, title: str) -> None:
    "The curves of a run, and the worst mistakes of its model, as files."
    PICTURES.mkdir(exist_ok=True)
    x, y = test_ds.tensors
    with torch.no_grad(): scores = torch.cat([model(part) for part in x.split(1000)])
    grey = (x - x.min())/(x.max() - x.min())
    curves = draw_curves(notes.losses, notes.rates, title)
    mistakes = plot_mistakes(grey, y, scores)[0].figure
    for name, figure in (("train.png", curves), ("mistakes.png", mistakes)):
        figure.savefig(PICTURES/name, dpi=120, bbox_inches="tight")
        print(f"picture: {PICTURES.name}/{name}")


def print_summary(times: list[float], rights: list[float]) -> None:
    right = torch.tensor(rights, dtype=torch.float64)
    print(f"{(right >= 0.99).sum()} of {len(right)} seeds reach 99.0%; mean {right.mean():.3%}, "
          f"from {right.min():.2%} to {right.max():.2%}; "
          f"seconds of training: median {median(times):.2f}")


def main(args: argparse.Namespace) -> None:
    "Trains with one seed or several; prints a row for each, and saves the pictures of the last."
    if "RANK" in os.environ: init_process_group()  # torchrun has started this process, and others
    first = not dist.is_initialized() or dist.get_rank() == 0
    device = default_device()
    fast = args.dtype == "auto" and is_fast_in_bfloat16(device)
    dtype = "bfloat16" if fast or args.dtype == "bfloat16" else "float32"
    recipe = RECIPE | dict(epochs=args.epochs, batch_size=args.batch_size, rate=args.lr)
    flags = dict(valid=args.valid, dtype=dtype, layers=args.layers, epochs=args.epochs,
                 batch_size=args.batch_size, lr=args.lr)

    train_ds, test_ds = new_sets(device, args.valid)
    judge = "validation" if args.valid else "test"
    steps = -(-len(train_ds)//args.batch_size)
    if first:
        print(f"{len(train_ds):,} images, {args.epochs} x {steps} batches of {args.batch_size}, "
              f"in {dtype} on {device}, layers of {args.layers}.nn")

    times, rights = [], []
    for seed in range(args.seed, args.seed + args.seeds):
        set_seed(seed)
        nn = fdl.nn if args.layers == "fdl" else torch.nn
        bare = model = new_model(nn, dtype == "bfloat16", device)
        if dist.is_initialized(): model = Replica(bare)
        notes, rows = Notes(flags), plain_epochs
        if args.checkpoint:
            parts = {"notes": notes, "model": bare}
            rows = Checkpoint(args.checkpoint/f"seed{seed}.pt", every=50, parts=parts)
        seconds = train(train_ds, model, recipe, notes, rows, first and args.seeds == 1)
        if not notes.losses: return

        found = evaluate(model, cross_entropy, DataLoader(test_ds, 1000))
        times.append(seconds)
        rights.append(found["accuracy"])
        if first:
            print(f"seed {seed}: {seconds:.2f} seconds of training; {judge} set: "
                  f"loss {found['loss']:.4f}, accuracy {found['accuracy']:.2%}", flush=True)
        if len(notes.losses) < args.epochs*steps: break  # Ctrl-C

    if not first: return
    if args.seeds > 1: print_summary(times, rights)
    title = f"{rights[-1]:.2%} of the {judge} set right after {seconds:.1f} seconds"
    save_pictures(bare, test_ds, notes, title)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seed", type=int, default=0)
    add("--seeds", type=int, default=1, help="how many seeds, from --seed on, to train with")
    add("--valid", action="store_true",
        help="train on 50,000 images and judge on the validation set, as for choosing a recipe")
    add("--dtype", choices=["auto", "float32", "bfloat16"], default="auto",
        help="what to multiply in; auto: bfloat16 where the device is fast at it")
    add("--layers", choices=["torch", "fdl"], default="torch",
        help="whose layers: torch.nn's, or the slower ones that the course builds")
    add("--epochs", type=int, default=RECIPE["epochs"])
    add("--batch-size", type=int, default=RECIPE["batch_size"])
    add("--lr", type=float, default=RECIPE["rate"], help="the peak of the one cycle")
    add("--checkpoint", type=Path, metavar="DIR",
        help="save the run in this folder, and go on with the one that is there")
    try: main(parser.parse_args())
    finally:
        if dist.is_initialized(): dist.destroy_process_group()
