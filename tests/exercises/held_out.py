"""Wrong answers that were written before the checkers, and which the checkers have not been fitted to.

Each function is called `exercise__misconception__anything`: the checker must refuse it, and should name that misconception.
"""
import math
import random

import torch

from fdl.data import TensorDataset
from fdl.nn import Module, Sequential
from fdl.optim.lr_scheduler import LRScheduler


def outer__swapped__view(a, b): return a.unsqueeze(0) * b.unsqueeze(1)
def outer__dot__both(a, b): return torch.sum(a * b)
def outer__added__expand(a, b): return a.reshape(-1, 1).expand(len(a), len(b)) + b
def outer__loop__rows(a, b): return torch.stack([x * b for x in a]) if len(a) else a[:, None] * b
def outer__torchs__ger(a, b): return torch.ger(a, b)
def outer__float32__empty(a, b): return (a.float()[:, None] * b.float())

def tent__too_little__sum(t): return torch.relu(t - 1) - torch.relu(t - 2) + torch.relu(t - 3)
def tent__below_zero__min(t): return torch.minimum(t - 1, 3 - t)
def tent__sign_of_bias__sum(t): return torch.relu(t + 1) - 2*torch.relu(t + 2) + torch.relu(t + 3)
def tent__stays_down__two(t): return torch.clamp(t - 1, min=0) - 2*torch.clamp(t - 2, min=0)

def fold__bias_added__reduce(layers):
    w, total = layers[0][0], sum(b for _, b in layers)
    for w2, _ in layers[1:]: w = w2.mm(w)
    return w, total

def fold__order__chain(layers):
    w, b = layers[0]
    for w2, b2 in layers[1:]: w, b = w @ w2, w2 @ b + b2
    return w, b

def fold__emptied__pop(layers):
    w, b = layers.pop()
    while layers:
        w1, b1 = layers.pop()
        w, b = w @ w1, w @ b1 + b
    return w, b

def fold__two_only__index(layers):
    if len(layers) == 1: return layers[0]
    (w1, b1), (w2, b2) = layers[:2]
    return w2 @ w1, b1 @ w2.T + b2

def squared_distances__root__norm(a, b): return torch.linalg.norm(a[:, None] - b[None], dim=-1)
def squared_distances__half_cross__sum(a, b): return (a*a).sum(1, keepdim=True) + (b*b).sum(1) - a.matmul(b.t())
def squared_distances__big__pow(a, b): return torch.sum((a.unsqueeze(1) - b)**2, dim=2)
def squared_distances__swapped__expand(a, b): return b.square().sum(1)[:, None] + a.square().sum(1) - 2 * b @ a.T
def squared_distances__plus__sum(a, b): return a.square().sum(1)[:, None] + b.square().sum(1) + 2 * a @ b.T


class Residual__no_skip__call(Module):
    def __init__(self, block): self.layer = block
    def forward(self, x): return self.layer(x)

class Residual__hidden__dict(Module):
    def __init__(self, block): self.parts = {"block": block}
    def forward(self, x): return self.parts["block"](x) + x

class Residual__changes_x__add(Module):
    def __init__(self, block): self.f = block
    def forward(self, x): return x.add_(self.f(x))

class Residual__twice__two(Module):
    def __init__(self, block): self.f = Sequential(block, block)
    def forward(self, x): return x + self.f(x)


def count_parameters__tensors__len(model, trainable=False):
    return len([p for p in model.parameters() if p.requires_grad or not trainable])

def count_parameters__shared_twice__names(model, trainable=False):
    named = model.named_parameters(remove_duplicate=False)
    return sum(p.numel() for _, p in named if not trainable or p.requires_grad)

def count_parameters__ignores_trainable__all(model, trainable=False):
    total = 0
    for p in model.parameters(): total += p.numel()
    return total

def count_parameters__rows__shape(model, trainable=False):
    return sum(p.shape[0] for p in model.parameters() if not trainable or p.requires_grad)


def _keep(model, names):
    for name, p in model.named_parameters(): p.requires_grad_(name in names)

def freeze_all_but__returns_frozen__list(model, *prefixes):
    every = [name for name, _ in model.named_parameters()]
    keep = [name for name in every if name.startswith(prefixes)]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in every): raise ValueError(prefix)
    _keep(model, keep)
    return [name for name in every if name not in keep]

def freeze_all_but__no_error__tuple(model, *prefixes):
    keep = [name for name, _ in model.named_parameters() if name.startswith(prefixes)]
    _keep(model, keep)
    return keep

def freeze_all_but__any_fits__one(model, *prefixes):
    keep = [name for name, _ in model.named_parameters() if name.startswith(prefixes)]
    if not keep: raise ValueError("no prefix fits")
    _keep(model, keep)
    return keep

def freeze_all_but__nothing_frozen__set(model, *prefixes):
    keep = []
    for prefix in prefixes:
        if not any(n.startswith(prefix) for n, _ in model.named_parameters()): raise ValueError(prefix)
    for name, p in model.named_parameters():
        if name.startswith(prefixes): keep.append(name)
        else: p.frozen = True
    return keep


def record_outputs__hooks_left__plain(model, x):
    found = {}
    for path, module in model.named_modules():
        if path: module.register_forward_hook(lambda m, i, o, path=path: found.update({path: o}))
    model(x)
    return found

def record_outputs__left_on_error__after(model, x):
    found, handles = {}, []
    for path, module in model.named_modules():
        if not path: continue
        def hook(module, args, output, path=path): found[path] = output
        handles += [module.register_forward_hook(hook)]
    model(x)
    for handle in handles: handle.remove()
    return found

def record_outputs__late_binding__closure(model, x):
    found, handles = {}, []
    try:
        for path, module in model.named_modules():
            if path == "": continue
            def hook(module, args, output): found[path] = output
            handles.append(module.register_forward_hook(hook))
        model(x)
    finally:
        for h in handles: h.remove()
    return found

def record_outputs__itself_too__all(model, x):
    found, handles = {}, []
    try:
        for path, module in model.named_modules():
            handles.append(module.register_forward_hook(lambda m, i, o, path=path: found.__setitem__(path, o)))
        model(x)
    finally:
        for h in handles: h.remove()
    return found

# Lessons 00, 01, 13 and 15; written after their checkers, which were not changed for them.
def centre_columns__rows__loop(x): return torch.stack([row - row.sum()/len(row) for row in x])
def centre_columns__in_place__sub(x): return x.sub_(x.mean(0, keepdim=True))
def checkerboard__product__outer(): return torch.outer(torch.arange(8) % 2, torch.arange(8) % 2)
def broadcast_shape__larger__zip(a, b):
    n = max(len(a), len(b))
    a, b = (1,)*(n - len(a)) + tuple(a), (1,)*(n - len(b)) + tuple(b)
    for i, j in zip(a, b):
        if i != j and min(i, j) != 1 and 0 not in (i, j): raise ValueError("no")
    return tuple(max(i, j) for i, j in zip(a, b))
def broadcast_shape__shorter__reversed(a, b):
    out = []
    for i, j in zip(reversed(a), reversed(b)):
        if i != j and 1 not in (i, j): raise ValueError
        out.insert(0, i if j == 1 else j)
    return tuple(out)
def count_bytes__four__loop(x):
    if torch.is_tensor(x): return x.numel()*4
    if isinstance(x, dict): x = list(x.values())
    return sum(count_bytes__four__loop(p) for p in x) if isinstance(x, (tuple, list)) else 0
def sum_by_halves__odd_lost__view(numbers):
    while len(numbers) > 1:
        numbers = numbers[:len(numbers)//2*2].view(-1, 2)
        numbers = numbers[:, 0] + numbers[:, 1]
    return numbers[0] if len(numbers) else numbers.new_zeros(())

def mean_ink__per_image__loop(x, y):
    out = torch.zeros(10, dtype=x.dtype)
    for c in range(10): out[c] = x[y == c].sum()/(y == c).sum()
    return out
def mean_ink__by_all__onehot(x, y): return (torch.eye(10, dtype=x.dtype)[y].T @ x).mean(1)/len(y)
def confusions__swapped__loop(preds, y):
    counts = torch.zeros(10, 10)
    for i, j in zip(preds, y): counts[i, j] += 1
    return counts
def confusions__once__loop(preds, y):
    counts = torch.zeros(10, 10)
    counts[y, preds] = 1
    return counts
def k_nearest__farthest__argsort(x_train, y_train, x, k=3): return y_train[torch.cdist(x, x_train).argsort(1)[:, -k:]].mode(1).values
def k_nearest__all_labels__sort(x_train, y_train, x, k=3): return y_train[torch.cdist(x, x_train).sort(1).indices[:, :k]]

def lecun_normal___variance__init(tensor): return torch.nn.init.normal_(tensor, 0, 1/tensor[0].numel())
def measured_gain__no_root__mean(act, n=1_000_000): return float(1/(act(torch.randn(n))**2).mean())
def measured_gain__deviation__std(act, n=1_000_000):
    z = torch.randn(n)
    return z.std()/act(z).std()
def rotation___normal__randn(tensor):
    tensor.data = torch.randn(tensor.shape, dtype=tensor.dtype)
    return tensor
def lsuv___old_outputs__data(model, xb):
    for layer in model:
        out = layer(xb)
        if hasattr(layer, "weight"):
            if layer.bias is not None:
                layer.bias.data.zero_()
                out = layer(xb)
            layer.weight.data /= out.std().item()
        xb = out.detach()
    return model

def layer_norm__instance__std(x, eps=1e-5):
    flat = x.flatten(2)
    return ((flat - flat.mean(2, keepdim=True))/(flat.var(2, keepdim=True, correction=0) + eps).sqrt()).view_as(x)
def layer_norm__unbiased__flat(x, eps=1e-5):
    flat = x.flatten(1)
    return ((flat - flat.mean(1, keepdim=True))/(flat.var(1, keepdim=True) + eps).sqrt()).view_as(x)
def drop_channels__pixels__rand(x, p): return torch.where(torch.rand(x.shape) < p, 0, x)/(1 - p) if p < 1 else torch.zeros_like(x)
def drop_channels__not_scaled__rand(x, p): return x*(torch.rand(x.shape[0], x.shape[1], 1, 1) >= p)
def fold_norm__no_mean__copy(conv, norm):
    import copy
    new, f = copy.deepcopy(conv), norm.weight/(norm.running_var + norm.eps).sqrt()
    new.weight.data *= f.reshape(-1, 1, 1, 1)
    new.bias = torch.nn.Parameter(norm.bias if conv.bias is None else norm.bias + conv.bias*f)
    return new

def clip_grad_norm__each_alone__torch(params, max_norm):
    total = torch.stack([p.grad.norm() for p in params]).norm()
    for p in params:
        if_long = torch.clamp(max_norm / (p.grad.norm() + 1e-6), max=1.0)
        p.grad.mul_(if_long)
    return total

def critical_momentum__not_squared__sqrt(lr, c):
    eta_c = lr * c
    return 1 - eta_c ** 0.5


def two_class_loss__overflows__log1p(z, y):
    return torch.log1p(torch.exp(z)) - y * z

def logsumexp_of_blocks__not_rescaled__running(blocks):
    m = s = None
    for b in blocks:
        top = b.max(dim=1).values
        m2 = top if m is None else torch.max(m, top)
        e = torch.exp(b - m2.unsqueeze(1)).sum(dim=1)
        s = e if s is None else s + e
        m = m2
    return m + torch.log(s)


def sigmoid_step__tanh__slip(x, g):
    y = 1 / (1 + torch.exp(-x))
    x.g = (1 - y**2) * g
    return torch.sum(g * y)

def center_step__own_share__n(x, g):
    n = x.shape[0]
    x.g = g - g / n
    return (g * (x - x.mean(0, keepdim=True))).sum()


def reshape__new_shape__view(t, shape):
    from fdl.autograd import _node
    return _node("view", t.data.view(shape), (t, lambda g: g))

def grad__cleared__none(output, inputs):
    for i in inputs: i.grad = None
    output.backward()
    grads = tuple(i.grad for i in inputs)
    for i in inputs: i.grad = None
    return grads


def best_epoch__last_of_ties__loop(history, patience=3):
    best, lowest = None, float("inf")
    for row in history:
        if row["valid_loss"] <= lowest: best, lowest = row["epoch"], row["valid_loss"]
    return best, history[-1]["epoch"] - best >= patience

def best_epoch__one_more__count(history, patience=3):
    lowest, waited = float("inf"), 0
    for row in history:
        if row["valid_loss"] < lowest: best, lowest, waited = row["epoch"], row["valid_loss"], 0
        else: waited += 1
    return best, waited > patience


def balanced_accuracy__by_prediction__loop(input, target):
    called, shares = input.argmax(dim=1), []
    for c in range(input.shape[1]):
        mine = called == c
        if mine.any(): shares.append((target[mine] == c).float().mean())
    return sum(shares) / len(shares)

def balanced_accuracy__absent_is_0__bincount(input, target):
    n = input.shape[1]
    hits = torch.bincount(target[input.argmax(1) == target], minlength=n)
    return (hits / torch.bincount(target, minlength=n).clamp(min=1)).mean()

def step_in_pieces__update_each__inside(params, xb, yb, lr, piece=8):
    for i in range(0, len(xb), piece):
        x, y = xb[i:i + piece], yb[i:i + piece]
        w1, b1, w2, b2 = params
        scores = torch.relu(x @ w1.T + b1) @ w2.T + b2
        (torch.nn.functional.cross_entropy(scores, y) * len(x) / len(xb)).backward()
        with torch.no_grad():
            for p in params:
                p -= lr * p.grad
                p.grad.zero_()

def step_in_pieces__mean_of_means__count(params, xb, yb, lr, piece=8):
    pieces = list(zip(xb.split(piece), yb.split(piece)))
    w1, b1, w2, b2 = params
    for x, y in pieces:
        scores = torch.relu(x @ w1.T + b1) @ w2.T + b2
        (torch.nn.functional.cross_entropy(scores, y) / len(pieces)).backward()
    with torch.no_grad():
        for p in params:
            p -= lr * p.grad
            p.grad = None


def balanced__in_order__equal_parts(labels, num_samples):
    found, kinds = [], sorted(set(labels.tolist()))
    for kind in kinds:
        where = torch.where(labels == kind)[0]
        found.extend(where[torch.randint(len(where), (num_samples // len(kinds),))].tolist())
    return found

def balanced__uniform__choices(labels, num_samples):
    import random
    return random.choices(range(len(labels)), k=num_samples)

def bucket_batches__only_sorted__argsort(lengths, batch_size, window=50):
    return [b.tolist() for b in torch.tensor(lengths).argsort().split(batch_size)]

def bucket_batches__not_shuffled__windows(lengths, batch_size, window=50):
    out = []
    for part in torch.randperm(len(lengths)).split(window * batch_size):
        part = sorted(part.tolist(), key=lengths.__getitem__)
        while part: out.append(part[:batch_size]); part = part[batch_size:]
    return out

class NoisyDigits__global_seed__seeded(TensorDataset):
    def __getitem__(self, i):
        torch.manual_seed(i)
        return self.tensors[0][i] + 0.3 * torch.randn_like(self.tensors[0][i]), self.tensors[1][i]

class NoisyDigits__anew__rand(TensorDataset):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image + torch.rand(image.shape) / 4, label
class Trapezoid__zero_at_last__clamp(LRScheduler):
    def __init__(self, optimizer, total_steps):
        self.last = total_steps - 1
        super().__init__(optimizer)
    def factor(self, t):
        n = self.last + 1
        up, down = 10*(t + 1)/n, (self.last - t)/n/0.3
        return sorted([up, down, 1.0])[0]

class Trapezoid__from_zero__branches(LRScheduler):
    def __init__(self, optimizer, total_steps):
        self.n = total_steps
        super().__init__(optimizer)
    def factor(self, t):
        if t < self.n*0.1: return t/(self.n*0.1)
        return min(1.0, (self.n - t)/(self.n*0.3))

def restarts__to_zero__modulo(t, T=25):
    i = t - t//T*T
    return 0.5 + 0.5*math.cos(i/(T - 1)*math.pi) if T > 1 else 1.0

def steepest_lr__not_smoothed__loop(rates, losses):
    best, at = 0, 0
    for i in range(1, len(losses)):
        if losses[i] - losses[i - 1] < best: best, at = losses[i] - losses[i - 1], i - 1
    return rates[at]

def steepest_lr__lowest__min(rates, losses):
    mean = [(a + b + c)/3 for a, b, c in zip(losses, losses[1:], losses[2:])]
    return rates[mean.index(min(mean)) + 1]

def receptive_field__previous_only__zip(layers):
    strides = [1] + [s for _, s in layers]
    return 1 + sum((k - 1)*s for (k, _), s in zip(layers, strides))

def receptive_field__backwards__recursive(layers):
    size = 1
    for k, s in layers: size = (size - 1)*s + k
    return size

def receptive_field__whole_kernel__prod(layers):
    return sum(k*math.prod(s for _, s in layers[:i]) for i, (k, _) in enumerate(layers))

def seeds_needed__first_only__twice(delta, a, b, k=2): return int(-(-(k*a)**2//delta**2))
def seeds_needed__spreads_added__sqrt(delta, a, b, k=2):
    deviation = a + b
    return math.ceil(k*k*deviation*deviation/(delta*delta))

def running_average__from_zero__zeros(vectors, beta):
    result = []
    m = torch.zeros_like(vectors[0]) if vectors else None
    for v in vectors:
        m = m + (1 - beta)*(v - m)
        result.append(m)
    return result

def shifted__end_left_out__randrange(x, most=2):
    if most == 0: return x
    dy, dx = random.randrange(-most, most), random.randrange(-most, most)
    padded = torch.nn.functional.pad(x, (most,)*4)
    return padded[:, :, most - dy:most - dy + 28, most - dx:most - dx + 28]

def rounded_at_random__coin__where(x):
    below = (x.view(torch.int32) >> 16 << 16)
    return torch.where(torch.rand(x.shape) < .5, below, below + 2**16).view(torch.float32).bfloat16()
