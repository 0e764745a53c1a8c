"Lesson 13, initialization."
import math

import torch

from fdl import nn
from fdl.init import _fans, kaiming_normal_

from .engine import Exercise, wrong


class lecun_normal_(Exercise):
    title, kind = "LeCun's initialization", "implement"
    hints = ("`normal_(mean, std)` takes a standard deviation. Which one has the variance 1/fan_in?",
             "`_fans(tensor)[0]` is fan_in; it counts a kernel's places too.",
             "Fill in place, without a gradient (`torch.no_grad()`), and return the tensor that came in.")
    then = "Which setting of `kaiming_normal_` gives the same to the last bit?"
    gradients = False

    def cases(randn):
        yield "two outputs, three inputs", (torch.zeros(2, 3).double(), False)
        yield "three outputs, two inputs", (torch.zeros(3, 2).double(), False)
        yield "one number", (torch.zeros(1, 1).double(), False)
        yield "a weight that was there before", (randn(3, 4), False)
        yield "float32", (torch.zeros(2, 5), False)
        yield "a parameter, which needs a gradient", (torch.zeros(2, 3).double(), True)
        yield "the kernels of a convolution", (torch.zeros(4, 3, 2, 2).double(), False)

    def run(answer, tensor, needs_gradient):
        weight = tensor.clone().requires_grad_(needs_gradient)
        torch.manual_seed(0)
        found = answer(weight)
        return {"weight afterwards": weight, "thing returned": "the weight" if isinstance(found, torch.Tensor) and found.data_ptr() == weight.data_ptr() else "something else",
                "gradient": "none is tracked" if weight.is_leaf else "tracked"}

    @torch.no_grad()
    def solution(tensor):
        fan_in, _ = _fans(tensor)
        return tensor.normal_(0, 1/math.sqrt(fan_in))

    def second(tensor): return kaiming_normal_(tensor, nonlinearity="linear")

    @wrong("gave the variance to `normal_`, which takes the standard deviation: its root")
    @torch.no_grad()
    def variance(tensor): return tensor.normal_(0, 1/_fans(tensor)[0])

    @wrong("took fan_out: it is the number of inputs that an output sums over", "`weight` has the shape (out, in): which of them is fan_in?")
    @torch.no_grad()
    def fan_out(tensor): return tensor.normal_(0, 1/math.sqrt(_fans(tensor)[1]))

    @wrong("took the mean of both fans: that is Xavier's, 2/(fan_in + fan_out)")
    @torch.no_grad()
    def xavier(tensor): return tensor.normal_(0, math.sqrt(2/sum(_fans(tensor))))

    @wrong("doubled the variance, as Kaiming does for ReLU: LeCun's is 1/fan_in")
    @torch.no_grad()
    def kaiming(tensor): return tensor.normal_(0, math.sqrt(2/_fans(tensor)[0]))

    @wrong("multiplied by the root of fan_in: a sum over more inputs needs smaller weights")
    @torch.no_grad()
    def multiplied(tensor): return tensor.normal_(0, math.sqrt(_fans(tensor)[0]))

    @wrong("left the kernel out of fan_in: an output sums over all its places", "`_fans` counts them.")
    @torch.no_grad()
    def no_kernel(tensor): return tensor.normal_(0, tensor.shape[1]**-.5)

    @wrong("made a new tensor: what came in is not filled, and the network keeps its old weights", "A name that ends in `_` promises to change its input.")
    @torch.no_grad()
    def new(tensor): return torch.empty_like(tensor).normal_(0, 1/math.sqrt(_fans(tensor)[0]))

    @wrong("filled the weight, but did not return it")
    @torch.no_grad()
    def not_returned(tensor): tensor.normal_(0, 1/math.sqrt(_fans(tensor)[0]))

    @wrong("filled a parameter under autograd's eyes: it does not allow that", "`with torch.no_grad():`, or the same as a decorator.")
    def tracked(tensor): return tensor.normal_(0, 1/math.sqrt(_fans(tensor)[0]))


def identity(z): return z
def thrice(z): return 3*z
def always_two(z): return torch.full_like(z, 2)


class measured_gain(Exercise):
    title, kind = "A measured gain", "implement"
    hints = ("The size of a signal is the root of the mean of its squares. What is it before `act`, and what after?",
             "Draw `z` with `torch.randn(n)`; its size is 1. The factor is 1 over the size of `act(z)`.",
             "`act(z).square().mean().sqrt()` is the size; a deviation would take the mean away first.")
    then = "Measure GELU, and send a signal through fifty layers with it."
    gradients = False
    compare = dict(rtol=.02, atol=1e-6)

    def cases(randn):
        yield "nothing happens", (identity, 100_000)
        yield "ReLU", (torch.relu, 100_000)
        yield "tanh", (torch.tanh, 100_000)
        yield "three times as large", (thrice, 100_000)
        yield "2, whatever comes in", (always_two, 1_000)
        yield "the absolute value", (torch.abs, 100_000)

    def run(answer, act, n):
        torch.manual_seed(0)
        found = answer(act, n)
        return found if found is None else torch.as_tensor(found).double()

    def solution(act, n):
        z = torch.randn(n)
        return 1/act(z).square().mean().sqrt()

    def second(act, n=1_000_000):
        z = torch.empty(n, dtype=torch.float64).normal_()
        return math.sqrt(n)/torch.linalg.vector_norm(act(z))

    @wrong("measured the standard deviation: it takes the mean away, and the next layer sums the squares with the mean", "ReLU's mean is not 0. What sizes do the derivations follow?")
    def deviation(act, n=1_000_000): return 1/act(torch.randn(n)).std()

    @wrong("forgot the root: the gain multiplies the weights, not their variance")
    def no_root(act, n=1_000_000): return 1/act(torch.randn(n)).square().mean()

    @wrong("returned the size itself: the gain is what brings it back to 1")
    def size(act, n=1_000_000): return act(torch.randn(n)).square().mean().sqrt()

    @wrong("took the mean of the absolute values: the size is the root of the mean square")
    def mean_abs(act, n=1_000_000): return 1/act(torch.randn(n)).abs().mean()

    @wrong("drew `z` evenly from 0 to 1: it is to be normal, and half of it negative", "`torch.randn`, with an n.")
    def rand(act, n=1_000_000): return 1/act(torch.rand(n)).square().mean().sqrt()

    @wrong("summed the squares where the mean is asked for: the answer must not depend on `n`")
    def summed(act, n=1_000_000): return 1/act(torch.randn(n)).norm()

    @wrong("squared the mean, where the mean of the squares is asked for")
    def squared_mean(act, n=1_000_000): return 1/act(torch.randn(n)).mean().abs()

    @wrong("left `act` out")
    def no_act(act, n=1_000_000): return 1/torch.randn(n).square().mean().sqrt()


class rotation_(Exercise):
    title, kind = "A random rotation", "implement"
    hints = ("Which part of the QR decomposition keeps lengths, and which is a triangle?",
             "`torch.linalg.qr(torch.randn(n, n))` returns Q and R. Its input must be new random numbers each time.",
             "`tensor.copy_(q)` fills in place and keeps the dtype; do it under `torch.no_grad()`, and return the tensor.")
    then = "Send a signal through 50 linear layers of it."
    gradients = False

    def cases(randn):
        yield "two by two", (randn(2, 2), False)
        yield "one number", (torch.zeros(1, 1).double(), False)
        yield "zeros to be filled", (torch.zeros(3, 3).double(), False)
        yield "float32", (torch.zeros(4, 4), False)
        yield "a parameter, which needs a gradient", (randn(3, 3), True)
        yield "sixteen", (randn(16, 16), False)

    def run(answer, tensor, needs_gradient):
        def filled(start, seed):
            weight = start.clone().requires_grad_(needs_gradient)
            torch.manual_seed(seed)
            return weight, answer(weight)
        weight, found = filled(tensor, 0)
        w, eye, small = weight.detach(), torch.eye(len(tensor), dtype=tensor.dtype), 1e-4
        close = lambda a, b: bool((a - b).abs().max() < small)
        facts = {"filling of the given tensor": not torch.equal(w, tensor), "return of the given tensor": isinstance(found, torch.Tensor) and found.data_ptr() == weight.data_ptr(),
                 "keeping of lengths": close(w @ w.T, eye), "length 1 of the rows": close(w.square().sum(1), torch.ones(1)),
                 "length 1 of the columns": close(w.square().sum(0), torch.ones(1)), "place as a leaf of the graph": weight.is_leaf}
        if len(tensor) > 1:
            again, other = filled(tensor, 1)[0].detach(), filled(tensor + eye + 1, 0)[0].detach()
            facts |= {"change with the seed": not close(again, w), "use of what stood there": close(again, w) and not close(other, w),
                      "shape of a triangle": close(w.tril(-1), 0*w)}
        return facts

    @torch.no_grad()
    def solution(tensor):
        q, _ = torch.linalg.qr(torch.randn_like(tensor))
        return tensor.copy_(q)

    def second(tensor):
        a = torch.randn(tensor.shape, dtype=torch.float64)
        tensor.data[:] = torch.matrix_exp(a - a.T)
        return tensor

    @wrong("decomposed what stood in the tensor: the matrix is to be random", "Make a new normal matrix of the same shape first.")
    @torch.no_grad()
    def of_itself(tensor): return tensor.copy_(torch.linalg.qr(tensor)[0])

    @wrong("took R, the triangle: Q is what keeps lengths")
    @torch.no_grad()
    def triangle(tensor): return tensor.copy_(torch.linalg.qr(torch.randn_like(tensor))[1])

    @wrong("filled it with independent numbers: lengths are then kept on average only", "Decompose such a matrix, and keep the part whose rows stand at right angles.")
    @torch.no_grad()
    def normal(tensor): return tensor.normal_(0, len(tensor)**-.5)

    @wrong("gave each row the length 1: the rows must also stand at right angles")
    @torch.no_grad()
    def unit_rows(tensor):
        a = torch.randn_like(tensor)
        return tensor.copy_(a/a.norm(dim=1, keepdim=True))

    @wrong("gave each column the length 1: the columns must also stand at right angles")
    @torch.no_grad()
    def unit_columns(tensor):
        a = torch.randn_like(tensor)
        return tensor.copy_(a/a.norm(dim=0))

    @wrong("filled it with the identity: it keeps lengths, but nothing in it is random")
    @torch.no_grad()
    def the_identity(tensor): return tensor.copy_(torch.eye(len(tensor)))

    @wrong("returned a new matrix, and did not fill the one that came in", "`tensor = q` moves a name; `tensor.copy_(q)` writes numbers.")
    @torch.no_grad()
    def new(tensor): return torch.linalg.qr(torch.randn_like(tensor))[0]

    @wrong("filled the tensor, but did not return it")
    @torch.no_grad()
    def not_returned(tensor): tensor.copy_(torch.linalg.qr(torch.randn_like(tensor))[0])

    @wrong("filled a parameter under autograd's eyes: it does not allow that", "`with torch.no_grad():`, or the same as a decorator.")
    def tracked(tensor): return tensor.copy_(torch.linalg.qr(torch.randn_like(tensor))[0])


class lsuv_(Exercise):
    title, kind = "Factors chosen by the data", "implement"
    hints = ("Go through the model layer by layer, and keep what comes out: `xb = layer(xb)`.",
             "At an `nn.Linear`: bias to 0 first, then measure the outputs, then divide the weight by their deviation.",
             "Measured once with bias 0, the new outputs are the old ones divided by the same number. Only then go on.")
    then = "Train the scaled network with 20 hidden layers."
    gradients = False
    compare = dict(rtol=.02, atol=.005)

    def cases(randn):
        yield "one layer", ((3, 8), randn(64, 3), False)
        yield "one output, inputs whose mean is not 0", ((3, 1), randn(64, 3) + 2, False)
        yield "one layer and a ReLU", ((3, 8, "relu"), randn(64, 3), False)
        yield "two layers, a ReLU between them", ((3, 8, "relu", 10), randn(64, 3) + 1, False)
        yield "no bias", ((3, 8, "relu", 10), randn(64, 3) + 1, True)
        yield "five layers", ((6, 16, "relu", 16, "relu", 16, "relu", 16, "relu", 10), randn(100, 6) + 1, False)

    def run(answer, widths, xb, no_bias):
        torch.manual_seed(0)
        layers, width = [], widths[0]
        for w in widths[1:]:
            layers.append(nn.ReLU() if w == "relu" else nn.Linear(width, w, bias=not no_bias))
            width = width if w == "relu" else w
        model = nn.Sequential(*layers).double()
        linears = [layer for layer in model if isinstance(layer, nn.Linear)]
        before = [layer.weight.detach().clone() for layer in linears]
        params = [id(p) for p in model.parameters()]
        found = answer(model, xb.clone())
        deviations, sizes, x = [], [], xb
        with torch.no_grad():
            for layer in model:
                x = layer(x)
                if isinstance(layer, nn.Linear):
                    deviations.append(x.std(correction=0))
                    sizes.append(x.square().mean().sqrt())
        unit = lambda w: w/w.norm()
        return {"list of the outputs' deviations": torch.stack(deviations),
                "list of the biases": torch.cat([torch.zeros(1).double()] + [layer.bias.detach() for layer in linears if not no_bias]),
                "direction of the weights, each brought to length 1": [unit(layer.weight.detach()) for layer in linears],
                "sign of each factor (positive?)": all(bool((layer.weight*w).sum() > 0) for layer, w in zip(linears, before)),
                "identity of the parameters (the same?)": [id(p) for p in model.parameters()] == params and all(p.requires_grad and p.is_leaf for p in model.parameters()),
                "return of the model": found is model}

    @torch.no_grad()
    def solution(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                if layer.bias is not None: layer.bias.zero_()
                layer.weight /= layer(xb).std()
            xb = layer(xb)
        return model

    def second(model, xb):
        with torch.no_grad():
            for layer in model:
                if hasattr(layer, "weight"):
                    if layer.bias is not None: layer.bias.fill_(0)
                    for _ in range(3): layer.weight.mul_(1/layer(xb).var(correction=0).sqrt())
                xb = layer(xb)
        return model

    @wrong("kept the biases: they are to be 0, else dividing the weight does not divide the outputs")
    @torch.no_grad()
    def bias_kept(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear): layer.weight /= layer(xb).std()
            xb = layer(xb)
        return model

    @wrong("set the bias to 0 only after measuring: the outputs that were measured are not those of the layer")
    @torch.no_grad()
    def bias_late(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight /= layer(xb).std()
                if layer.bias is not None: layer.bias.zero_()
            xb = layer(xb)
        return model

    @wrong("went on with the old outputs: the next layer will see the new ones", "Call the layer again after the division.")
    @torch.no_grad()
    def old_outputs(model, xb):
        for layer in model:
            linear = isinstance(layer, nn.Linear)
            if linear and layer.bias is not None: layer.bias.zero_()
            out = layer(xb)
            if linear: layer.weight /= out.std()
            xb = out
        return model

    @wrong("left the layers between the linear ones out: the next one sees what their ReLU lets through")
    @torch.no_grad()
    def no_relu(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                if layer.bias is not None: layer.bias.zero_()
                layer.weight /= layer(xb).std()
                xb = layer(xb)
        return model

    @wrong("multiplied by the deviation, where the weight is to be divided by it")
    @torch.no_grad()
    def multiplied(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                if layer.bias is not None: layer.bias.zero_()
                layer.weight *= layer(xb).std()
            xb = layer(xb)
        return model

    @wrong("divided by the variance: outputs halve when the weight halves, so it is the deviation")
    @torch.no_grad()
    def variance(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                if layer.bias is not None: layer.bias.zero_()
                layer.weight /= layer(xb).var()
            xb = layer(xb)
        return model

    @wrong("divided by the size, the root of the mean square: the deviation is asked for, which takes the mean away")
    @torch.no_grad()
    def size(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                if layer.bias is not None: layer.bias.zero_()
                layer.weight /= layer(xb).square().mean().sqrt()
            xb = layer(xb)
        return model

    @wrong("gave each neuron a factor of its own: one number divides the whole weight")
    @torch.no_grad()
    def each_neuron(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                if layer.bias is not None: layer.bias.zero_()
                layer.weight /= layer(xb).std(0)[:, None]
            xb = layer(xb)
        return model

    @wrong("did not return the model")
    @torch.no_grad()
    def not_returned(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                if layer.bias is not None: layer.bias.zero_()
                layer.weight /= layer(xb).std()
            xb = layer(xb)

    @wrong("set a bias to 0 without asking whether there is one: with `bias=False` it is None")
    @torch.no_grad()
    def needs_bias(model, xb):
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.bias.zero_()
                layer.weight /= layer(xb).std()
            xb = layer(xb)
        return model
