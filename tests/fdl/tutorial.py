"""The steps of PyTorch's beginner tutorial "What is torch.nn really?", written with PyTorch's imports.

`test_tutorial.py` runs this text twice, as it stands and with its imports swapped for those of `fdl`, and compares
the losses. It finds `x_train`, `y_train`, `x_valid`, `y_valid` defined, in float64, and leaves `losses` behind.
"""
import torch
from torch import nn, optim
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

bs, lr, losses = 64, 0.5, {}
torch.manual_seed(0)


# From nothing but tensors: a linear classifier, its own log-softmax and its own loss.
weights = torch.randn(784, 10, dtype=torch.float64)/28
weights.requires_grad_()
bias = torch.zeros(10, dtype=torch.float64, requires_grad=True)

def log_softmax(x): return x - x.exp().sum(-1).log().unsqueeze(-1)
def model(xb): return log_softmax(xb @ weights + bias)
def nll(input, target): return -input[range(target.shape[0]), target].mean()
def accuracy(out, yb): return (torch.argmax(out, dim=1) == yb).double().mean().item()

losses["tensors"] = []
for i in range(0, len(x_train), bs):
    loss = nll(model(x_train[i:i + bs]), y_train[i:i + bs])
    loss.backward()
    with torch.no_grad():
        weights -= weights.grad*lr
        bias -= bias.grad*lr
        weights.grad.zero_()
        bias.grad.zero_()
    losses["tensors"].append(loss.item())


# The loss from the library, which takes scores.
losses["functional"] = [F.cross_entropy(x_valid @ weights + bias, y_valid).item(), accuracy(model(x_valid), y_valid)]


# A module that holds the parameters.
class Logistic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(784, 10)/28)
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, xb): return xb @ self.weights + self.bias

model, losses["module"] = Logistic().double(), []
for i in range(0, len(x_train), bs):
    loss = F.cross_entropy(model(x_train[i:i + bs]), y_train[i:i + bs])
    loss.backward()
    with torch.no_grad():
        for p in model.parameters(): p -= p.grad*lr
        model.zero_grad()
    losses["module"].append(loss.item())


# The layer, the optimizer, the dataset and the loader from the library.
class Logistic(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(784, 10)

    def forward(self, xb): return self.lin(xb)

def get_data(train_ds, valid_ds, bs):
    return DataLoader(train_ds, batch_size=bs, shuffle=True), DataLoader(valid_ds, batch_size=bs*2)

def loss_batch(model, loss_func, xb, yb, opt=None):
    loss = loss_func(model(xb), yb)
    if opt is not None:
        loss.backward()
        opt.step()
        opt.zero_grad()
    return loss.item(), len(xb)

def fit(epochs, model, loss_func, opt, train_dl, valid_dl):
    history = []
    for epoch in range(epochs):
        model.train()
        for xb, yb in train_dl: history.append(loss_batch(model, loss_func, xb, yb, opt)[0])
        model.eval()
        with torch.no_grad(): batches, counts = zip(*[loss_batch(model, loss_func, xb, yb) for xb, yb in valid_dl])
        history.append(sum(loss*n for loss, n in zip(batches, counts))/sum(counts))
    return history

train_ds, valid_ds = TensorDataset(x_train, y_train), TensorDataset(x_valid, y_valid)
train_dl, valid_dl = get_data(train_ds, valid_ds, bs)
model = Logistic().double()
losses["refactored"] = fit(2, model, F.cross_entropy, optim.SGD(model.parameters(), lr=lr), train_dl, valid_dl)


# A convolutional network, as a class.
class MnistCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 16, kernel_size=3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(16, 10, kernel_size=3, stride=2, padding=1)

    def forward(self, xb):
        xb = xb.view(-1, 1, 28, 28)
        for conv in (self.conv1, self.conv2, self.conv3): xb = F.relu(conv(xb))
        return F.avg_pool2d(xb, 4).view(-1, xb.size(1))

model = MnistCNN().double()
losses["class"] = fit(1, model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), train_dl, valid_dl)


# The same as a Sequential, with the reshaping moved out of the model and into the loader.
class Lambda(nn.Module):
    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, x): return self.func(x)

class WrappedDataLoader:
    def __init__(self, dl, func): self.dl, self.func = dl, func
    def __len__(self): return len(self.dl)
    def __iter__(self):
        for batch in self.dl: yield self.func(*batch)

def preprocess(x, y): return x.view(-1, 1, 28, 28), y

model = nn.Sequential(
    nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1), nn.ReLU(),
    nn.Conv2d(16, 16, kernel_size=3, stride=2, padding=1), nn.ReLU(),
    nn.Conv2d(16, 10, kernel_size=3, stride=2, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), Lambda(lambda x: x.view(x.size(0), -1))).double()
train_dl, valid_dl = (WrappedDataLoader(dl, preprocess) for dl in get_data(train_ds, valid_ds, bs))
losses["sequential"] = fit(2, model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), train_dl, valid_dl)
