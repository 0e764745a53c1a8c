"""Trains the course's network, 784-50-10, on MNIST with the exported package.

Prints a table row an epoch, and saves the learning curves and the worst mistakes as pictures in runs/. Ctrl-C
ends the training early; what was learned until then is still tested and drawn.
"""
import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws into files: needs no screen
import torch

from fdl.core import default_device, set_seed
from fdl.data import DataLoader, TensorDataset
from fdl.datasets import load_mnist
from fdl.functional import cross_entropy
from fdl.nn import Linear, ReLU, Sequential
from fdl.optim import SGD, OneCycleLR
from fdl.plots import plot_history, plot_mistakes
from fdl.training import evaluate, fit, get_dls

PICTURES = Path(__file__).resolve().parent.parent/"runs"


def main(epochs: int, batch_size: int, lr: float, seed: int) -> None:
    "Trains, prints a row an epoch, tests once at the end and saves the pictures."
    set_seed(seed)
    torch.set_num_threads(1)  # on a CPU, layers as small as these are slower on several cores
    device = default_device()
    train, valid, test = load_mnist(device=device)
    train_dl, valid_dl = get_dls(TensorDataset(*train), TensorDataset(*valid), batch_size)
    model = Sequential(Linear(784, 50), ReLU(), Linear(50, 10)).to(device)
    opt = SGD(model.parameters(), lr)
    schedule = OneCycleLR(opt, lr, epochs=epochs, steps_per_epoch=len(train_dl), pct_start=0.1, cycle_momentum=False)
    print(f"784-50-10 on {device}: {epochs} epochs of {len(train_dl)} batches of {batch_size}, learning rate up to {lr}, seed {seed}")
    history = fit(epochs, model, cross_entropy, opt, train_dl, valid_dl, scheduler=schedule)
    if not history: return

    found = evaluate(model, cross_entropy, DataLoader(TensorDataset(*test), 1000))
    print(f"test set: loss {found['loss']:.4f}, accuracy {found['accuracy']:.2%}")
    with torch.no_grad(): scores = model(test[0])
    curves, mistakes = plot_history(history)[0].figure, plot_mistakes(*test, scores)[0].figure
    curves.suptitle(f"784-50-10 on MNIST: {found['accuracy']:.2%} of the test set right")
    PICTURES.mkdir(exist_ok=True)
    for name, figure in (("train.png", curves), ("mistakes.png", mistakes)):
        figure.savefig(PICTURES/name, dpi=120, bbox_inches="tight")
        print(f"picture: {PICTURES.name}/{name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
