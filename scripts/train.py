"""Trains the course's network, 784-50-10, on MNIST with the exported package.

Prints a table row an epoch and saves a picture of the result as runs/train.png. Ctrl-C ends the
training early; what was learned until then is still tested and drawn.
"""
import argparse
import time
from pathlib import Path

import matplotlib
import torch
from tqdm.auto import tqdm

from fdl.core import default_device, set_seed
from fdl.datasets import load_mnist
from fdl.functional import cross_entropy, linear, relu
from fdl.metrics import report

matplotlib.use("Agg")  # draws into a file: needs no screen
import matplotlib.pyplot as plt

PICTURE = Path(__file__).resolve().parent.parent/"runs"/"train.png"


def make_model(device: torch.device, hidden: int = 50) -> tuple:
    "The network's parameters, and the function from images to scores."
    w1, w2 = torch.randn(hidden, 784)*(2/784)**0.5, torch.randn(10, hidden)*(1/hidden)**0.5
    params = [p.to(device).requires_grad_() for p in (w1, torch.zeros(hidden), w2, torch.zeros(10))]

    def model(xb):
        w1, b1, w2, b2 = params
        return linear(relu(linear(xb, w1, b1)), w2, b2)
    return params, model


def train_epoch(params: list, model, x: torch.Tensor, y: torch.Tensor, batch_size: int, lrs, label: str) -> float:
    "One pass over the data in a new random order, with a learning rate for each batch; returns the mean training loss."
    total = torch.zeros((), device=x.device)
    for indices, lr in zip(tqdm(torch.randperm(len(x)).to(x.device).split(batch_size), desc=label, leave=False), lrs):
        loss = cross_entropy(model(x[indices]), y[indices])
        loss.backward()
        with torch.no_grad():
            for p in params:
                p -= lr*p.grad
                p.grad = None
            total += loss*len(indices)
    return total.item()/len(x)


def draw(history: list, x: torch.Tensor, y: torch.Tensor, scores: torch.Tensor, test_accuracy: float) -> None:
    "Saves the learning curves and the twelve mistakes that the network is most sure of."
    probs, preds = scores.softmax(-1).max(-1)
    wrong = (preds != y).nonzero().squeeze(1)
    worst = wrong[probs[wrong].argsort(descending=True)[:12]].tolist()
    fig, axs = plt.subplot_mosaic([["curve"]*3 + [f"{r}{c}" for c in range(4)] for r in range(3)], figsize=(11, 4.5), layout="constrained")
    epochs, train_loss, valid_loss, _ = zip(*history)
    axs["curve"].plot(epochs, train_loss, "o-", label="training")
    axs["curve"].plot(epochs, valid_loss, "s--", label="validation")
    axs["curve"].set(xlabel="epoch", ylabel="cross-entropy (nats)", title=f"784-50-10 on MNIST: {test_accuracy:.2%} on the test set", ylim=(0, None))
    axs["curve"].legend()
    for k in range(12):
        ax = axs[f"{k//4}{k%4}"]
        ax.axis("off")
        if k < len(worst):
            i = worst[k]
            ax.imshow(x[i].reshape(28, 28).cpu(), cmap="gray_r", vmin=0, vmax=1)
            ax.set_title(f"{y[i]}, read as {preds[i]}", fontsize=9)
    PICTURE.parent.mkdir(exist_ok=True)
    fig.savefig(PICTURE, dpi=120)


def main(epochs: int, batch_size: int, lr: float, seed: int) -> None:
    "Trains, prints a row an epoch, tests once at the end and saves the picture."
    set_seed(seed)
    torch.set_num_threads(1)  # on a CPU, layers as small as these are slower on several cores
    device = default_device()
    (x_train, y_train), (x_valid, y_valid), (x_test, y_test) = load_mnist(device=device)
    params, model = make_model(device)
    batches = -(-len(x_train)//batch_size)
    lrs = torch.linspace(lr, 0, epochs*batches + 1).tolist()
    print(f"784-50-10 on {device}, {epochs} epochs of {batches} batches of {batch_size}, learning rate {lr} falling to 0, seed {seed}")
    print(f"{'epoch':>5} {'train loss':>11} {'valid loss':>11} {'valid accuracy':>15} {'seconds':>8}")
    history = []
    try:
        for epoch in range(epochs):
            start = time.perf_counter()
            train_loss = train_epoch(params, model, x_train, y_train, batch_size, lrs[epoch*batches:], f"epoch {epoch + 1}")
            valid_loss, valid_accuracy = report(model, cross_entropy, x_valid, y_valid)
            history.append((epoch + 1, train_loss, valid_loss, valid_accuracy))
            print(f"{epoch + 1:>5} {train_loss:>11.4f} {valid_loss:>11.4f} {valid_accuracy:>15.2%} {time.perf_counter() - start:>8.1f}")
    except KeyboardInterrupt: print("\nStopped early.")
    if not history: return
    test_loss, test_accuracy = report(model, cross_entropy, x_test, y_test)
    print(f"test set: loss {test_loss:.4f}, accuracy {test_accuracy:.2%}")
    with torch.no_grad(): draw(history, x_test, y_test, model(x_test), test_accuracy)
    print(f"picture: {PICTURE.relative_to(Path.cwd()) if PICTURE.is_relative_to(Path.cwd()) else PICTURE}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
