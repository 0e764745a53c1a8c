"fdl's model, loss, optimizer and schedule inside other people's trainers: what torch's own give there is right."
from functools import partial

import pytest
import torch
from torch.testing import assert_close

import fdl.nn
import fdl.optim
import fdl.optim.lr_scheduler

pytestmark = [pytest.mark.weekly, pytest.mark.filterwarnings("ignore")]
NN, OPTIM = {"fdl": fdl.nn, "torch": torch.nn}, {"fdl": fdl.optim, "torch": torch.optim}
SCHEDULES = {"fdl": fdl.optim.lr_scheduler, "torch": torch.optim.lr_scheduler}
MIXES = [("fdl", "fdl"), ("fdl", "torch"), ("torch", "fdl")]
both = pytest.mark.parametrize("nn, optim", MIXES)


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 12, generator=generator)
    return x, (x[:, :3] + 0.1*torch.randn(96, 3, generator=generator)).argmax(1)


def network(nn):
    "A network whose body, with buffers, is `nn`'s, and whose head is torch's, from seed 0."
    torch.manual_seed(0)
    lib = NN[nn]
    body = lib.Sequential(torch.nn.Unflatten(1, (12, 1, 1)), lib.BatchNorm2d(12), lib.Flatten(), lib.Linear(12, 16), lib.ReLU(), lib.Dropout(0.1))
    return torch.nn.Sequential(body, torch.nn.Linear(16, 3))


# skorch

def with_skorch(nn, optim, tmp_path):
    skorch, clone = pytest.importorskip("skorch"), pytest.importorskip("sklearn.base").clone
    torch.manual_seed(0)
    x, y = data()
    make = {"module": network, "module__nn": nn, "criterion": torch.nn.CrossEntropyLoss, "optimizer": OPTIM[optim].Adam}
    net = clone(skorch.NeuralNetClassifier(**make, lr=0.02, optimizer__weight_decay=0.01, max_epochs=4, batch_size=32, train_split=None, verbose=0))
    net.fit(x, y)
    net.save_params(tmp_path/"net.pt", tmp_path/"optimizer.pt")
    again = skorch.NeuralNetClassifier(**make).initialize()
    again.load_params(tmp_path/"net.pt", tmp_path/"optimizer.pt")
    assert (again.predict(x) == net.predict(x)).all() and len(again.optimizer_.state_dict()["state"]) == 6
    return net.history[:, "train_loss"], torch.tensor(net.predict_proba(x.numpy()))


@both
def test_skorch(nn, optim, tmp_path):
    losses, probs = with_skorch(nn, optim, tmp_path)
    assert losses[-1] < 0.8*losses[0]
    assert_close((losses, probs), with_skorch("torch", "torch", tmp_path), rtol=1e-4, atol=1e-5)


# Lightning

def with_lightning(nn, optim, tmp_path):
    pl = pytest.importorskip("lightning")

    class Classifier(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.loss_func, self.losses, self.rates = network(nn), NN[nn].CrossEntropyLoss(), [], []

        def training_step(self, batch, i):
            loss = self.loss_func(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            self.rates.append(self.optimizers().param_groups[0]["lr"])
            return loss

        def configure_optimizers(self):
            opt = OPTIM[optim].SGD(self.parameters(), lr=0.5, momentum=0.9)
            return {"optimizer": opt, "lr_scheduler": {"scheduler": SCHEDULES[optim].OneCycleLR(opt, 0.5, total_steps=12), "interval": "step"}}

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), 32)
    quiet = dict(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, default_root_dir=tmp_path)
    def train(epochs, model, **options):
        trainer = pl.Trainer(max_epochs=epochs, **quiet)
        trainer.fit(model, loader, **options)
        return trainer
    model, resumed = Classifier(), Classifier()
    train(2, model).save_checkpoint(tmp_path/"half.ckpt")
    torch.manual_seed(1)
    train(4, resumed, ckpt_path=tmp_path/"half.ckpt", weights_only=False)
    assert Classifier.load_from_checkpoint(tmp_path/"half.ckpt", weights_only=False).state_dict().keys() == model.state_dict().keys()
    return model.losses + resumed.losses, model.rates + resumed.rates, dict(resumed.state_dict())


@both
def test_lightning(nn, optim, tmp_path):
    losses, rates, state = with_lightning(nn, optim, tmp_path)
    assert len(losses) == 12 and losses[-1] < 0.8*losses[0] and len(set(rates)) == 12
    assert_close((losses, rates, state), with_lightning("torch", "torch", tmp_path), rtol=1e-4, atol=1e-5)


# fastai

def with_fastai(nn, optim):
    basics, _ = pytest.importorskip("fastai.basics"), pytest.importorskip("fastai.callback.schedule")
    torch.manual_seed(0)
    items = list(zip(*data()))
    dls = basics.DataLoaders.from_dsets(items, items[:32], bs=32, shuffle=False, device="cpu")
    learner = basics.Learner(dls, network(nn), NN[nn].CrossEntropyLoss(), opt_func=partial(basics.OptimWrapper, opt=OPTIM[optim].AdamW), metrics=basics.accuracy)
    with learner.no_logging():
        learner.fit_one_cycle(3, 0.05)
        losses, rates = [loss.item() for loss in learner.recorder.losses], list(learner.recorder.lrs)
        learner.fit(1, 0.01)
    return losses, rates, dict(learner.model.state_dict())


@both
def test_fastai(nn, optim):
    losses, rates, state = with_fastai(nn, optim)
    assert losses[-1] < 0.8*losses[0]
    assert_close((losses, rates, state), with_fastai("torch", "torch"), rtol=1e-4, atol=1e-5)
