"""Trains the course's fast network on MNIST: 99% of the test set after one pass over the images.

Lesson 19 builds the recipe, ingredient by ingredient, on the validation set; `--valid` judges it there, as the lesson does.
Without it the network trains on all 60,000 training and validation images, and the test set is used once, at the end. The
loss of every batch and the worst mistakes are saved as pictures in runs/. Ctrl-C ends the training early; what was learned
until then is still tested and drawn. With `--checkpoint DIR` the run is saved there now and then, and at Ctrl-C; the same command goes
on where it stopped, and ends as if it had not been.

Several processes share the work when torchrun starts them: torchrun --standalone --nproc-per-node 2 scripts/train.py
"""
import argparse
import os
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
from fdl.training import evaluate, fit, loss_batch

PICTURES = Path(__file__).resolve().parent.parent/"runs"


def is_fast_in_bfloat16(device: torch.device) -> bool:
    "Whether the device has instructions for bfloat16; asked of torch."
    if device.type == "cuda": return torch.cuda.is_bf16_supported(including_emulation=False)
    has = getattr(torch.cpu, "get_capabilities", dict)()  # a torch that is older cannot say
    return device.type == "cpu" and any("bf16" in name and there for name, there in has.items())


class Mixed(fdl.nn.Module):
    "`model`, with its products in bfloat16 if `bf16`; parameters and scores stay in float32."
    def __init__(self, model: torch.nn.Module | fdl.nn.Module, bf16: bool):
        super().__init__()
        self.model, self.bf16 = model, bf16

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16): return self.model(x).float()


def new_model(nn, bf16: bool, device: torch.device) -> Mixed:
    "The network, from the layers of the module `nn`: torch's, or this course's own."
    model = nn.Sequential(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.MaxPool2d(2), nn.ReLU(),
                          nn.Conv2d(32, 96, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(864, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
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
    def state_dict(self) -> dict: return {"flags": self.flags, "losses": [loss.cpu() for loss in self.losses], "rates": list(self.rates)}

    def load_state_dict(self, state: dict) -> None:
        if state["flags"] != self.flags: raise ValueError(f"it was started with {state['flags']}, this one with {self.flags}")
        self.losses, self.rates = state["losses"], state["rates"]


def train(ds: TensorDataset, model: Mixed, notes: Notes, folder: Path | None, seed: int, epochs: int, batch_size: int, lr: float, progress: bool) -> float:
    "Trains `model`, or goes on with it; returns the seconds."
    dl = DataLoader(ds, batch_size, shuffle=True)
    opt = Adam(model.parameters(), lr, betas=(0.7, 0.9))
    schedule = OneCycleLR(opt, lr, epochs=epochs, steps_per_epoch=len(dl), cycle_momentum=False)
    rows = Checkpoint(folder/f"seed{seed}.pt", every=50, parts={"notes": notes, "model": getattr(model, "module", model)}) if folder else plain_epochs
    if dist.is_initialized(): dl = Sharded(dl)

    def noted(*batch):
        notes.rates.append(opt.param_groups[0]["lr"])
        loss, weight = (step if dist.is_initialized() else loss_batch)(*batch)
        notes.losses.append(loss)
        return loss, weight

    start = perf_counter()
    fit(epochs, model, partial(cross_entropy, label_smoothing=0.1), opt, dl, scheduler=schedule, step=noted, epochs=rows, progress=progress)
    return perf_counter() - start


def draw_curves(losses: list[Tensor], rates: list[float], title: str) -> Figure:
    "The loss of every batch, with its running mean over 20, beside the learning rate."
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    losses = torch.stack([loss.cpu() for loss in losses])
    left.plot(losses, lw=0.6, alpha=0.5, label="one batch")
    if len(losses) >= 20: left.plot(range(19, len(losses)), losses.unfold(0, 20, 1).mean(1), label="mean of 20")
    left.set(xlabel="batch", ylabel="training loss, smoothed labels")
    left.legend(frameon=False)
    right.plot(rates)
    right.set(xlabel="batch", ylabel="learning rate")
    figure.suptitle(title)
    return figure


def main(seed: int, seeds: int, valid: bool, dtype: str, layers: str, epochs: int, batch_size: int, lr: float, checkpoint: Path | None) -> None:
    "Trains with one seed or several; prints a row for each, and saves the pictures of the last."
    if "RANK" in os.environ: init_process_group()  # torchrun has started this process, and others
    first = not dist.is_initialized() or dist.get_rank() == 0
    device = default_device()
    if dtype == "auto": dtype = "bfloat16" if is_fast_in_bfloat16(device) else "float32"
    train_ds, test_ds = new_sets(device, valid)
    judge = "validation" if valid else "test"
    if first: print(f"{len(train_ds):,} images, {epochs} x {-(-len(train_ds)//batch_size)} batches of {batch_size}, in {dtype} on {device}, layers of {layers}.nn")
    found = []
    for s in range(seed, seed + seeds):
        set_seed(s)
        model = new_model(fdl.nn if layers == "fdl" else torch.nn, dtype == "bfloat16", device)
        if dist.is_initialized(): model = Replica(model)
        notes = Notes(dict(valid=valid, dtype=dtype, layers=layers, epochs=epochs, batch_size=batch_size, lr=lr))
        seconds = train(train_ds, model, notes, checkpoint, s, epochs, batch_size, lr, progress=first and seeds == 1)
        if not notes.losses: return
        found.append((seconds, evaluate(model, cross_entropy, DataLoader(test_ds, 1000))))
        if first: print(f"seed {s}: {seconds:.2f} seconds of training; {judge} set: loss {found[-1][1]['loss']:.4f}, accuracy {found[-1][1]['accuracy']:.2%}", flush=True)
        if len(notes.losses) < epochs*-(-len(train_ds)//batch_size): break  # Ctrl-C
    if first and seeds > 1:
        right = torch.tensor([measured["accuracy"] for _, measured in found], dtype=torch.float64)
        print(f"{(right >= 0.99).sum()} of {len(right)} seeds reach 99.0%; mean {right.mean():.3%}, from {right.min():.2%} to {right.max():.2%}; "
              f"seconds of training: median {median(seconds for seconds, _ in found):.2f}")

    if not first: return
    PICTURES.mkdir(exist_ok=True)
    x, y = test_ds.tensors
    if isinstance(model, Replica): model = model.module
    with torch.no_grad(): scores = torch.cat([model(part) for part in x.split(1000)])
    grey = (x - x.min())/(x.max() - x.min())
    curves = draw_curves(notes.losses, notes.rates, f"{found[-1][1]['accuracy']:.2%} of the {judge} set right after {found[-1][0]:.1f} seconds")
    for name, figure in (("train.png", curves), ("mistakes.png", plot_mistakes(grey, y, scores)[0].figure)):
        figure.savefig(PICTURES/name, dpi=120, bbox_inches="tight")
        print(f"picture: {PICTURES.name}/{name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from --seed on, to train with")
    parser.add_argument("--valid", action="store_true", help="train on 50,000 images and judge on the validation set, as for choosing a recipe")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="what to multiply in; auto: bfloat16 where the device is fast at it")
    parser.add_argument("--layers", choices=["torch", "fdl"], default="torch", help="whose layers: torch.nn's, or the slower ones that the course builds")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="save the run in this folder, and go on with the one that is there")
    try: main(**vars(parser.parse_args()))
    finally:
        if dist.is_initialized(): dist.destroy_process_group()
