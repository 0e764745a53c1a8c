"Lesson 15, normalization."
import torch

from fdl.nn import BatchNorm2d, Conv2d

from .engine import Exercise, wrong


class layer_norm(Exercise):
    title, kind = "Layer normalization", "implement"
    hints = ("Over which dimensions does the mean go, if each image is to have its own?",
             "Over 1, 2 and 3, with `keepdim=True`, so that the means have the shape (n, 1, 1, 1).",
             "The variance is the mean of the squares, over all numbers and not one fewer (`correction=0`); `eps` is added to it under the root.")
    then = "What happens to the two modes? And what with a batch of one image?"
    forbidden = ("layer_norm", "group_norm", "instance_norm", "batch_norm")

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "two images of one pixel and two channels", (d(1., 5., 2., 20.).view(2, 2, 1, 1), 1e-5)
        yield "one image", (d(0., 1., 3., 4., 1., 2.).view(1, 1, 2, 3), 1e-5)
        yield "two images of two channels", (randn(2, 2, 2, 3) + 3, 1e-5)
        yield "all pixels alike", (torch.full((1, 1, 2, 2), 7.).double(), 1e-5)
        yield "a large eps", (randn(3, 2, 2, 2), 1.)
        yield "float32", (torch.arange(8.).view(1, 2, 2, 2), 1e-5)
        yield "an empty batch", (torch.zeros(0, 2, 2, 2).double(), 1e-5)

    def solution(x, eps):
        centred = x - x.mean((1, 2, 3), keepdim=True)
        return centred/(centred.square().mean((1, 2, 3), keepdim=True) + eps).sqrt()

    def second(x, eps=1e-5):
        flat = x.flatten(1)
        var, mean = torch.var_mean(flat, -1, unbiased=False)
        return ((flat.T - mean)*torch.rsqrt(var + eps)).T.reshape(x.shape)

    @wrong("normalized over the batch and the pixels, as batch normalization does: here each image has its own mean and variance")
    def batch(x, eps=1e-5):
        return (x - x.mean((0, 2, 3), keepdim=True))/(x.var((0, 2, 3), keepdim=True, correction=0) + eps).sqrt()

    @wrong("normalized each channel of an image by itself: that is instance normalization", "The channels belong to what is averaged.")
    def instance(x, eps=1e-5):
        return (x - x.mean((2, 3), keepdim=True))/(x.var((2, 3), keepdim=True, correction=0) + eps).sqrt()

    @wrong("normalized over the channels alone, each pixel by itself: all of an image's numbers share a mean")
    def each_pixel(x, eps=1e-5):
        return (x - x.mean(1, keepdim=True))/(x.var(1, keepdim=True, correction=0) + eps).sqrt()

    @wrong("took one mean for the whole batch: each image has its own")
    def everything(x, eps=1e-5): return (x - x.mean())/(x.var(correction=0) + eps).sqrt()

    @wrong("divided the squares by one fewer than there are: `var` and `std` do that unless `correction=0`")
    def unbiased(x, eps=1e-5):
        return (x - x.mean((1, 2, 3), keepdim=True))/(x.var((1, 2, 3), keepdim=True) + eps).sqrt()

    @wrong("divided by the variance: its root is what brings the deviation to 1")
    def no_root(x, eps=1e-5):
        return (x - x.mean((1, 2, 3), keepdim=True))/(x.var((1, 2, 3), keepdim=True, correction=0) + eps)

    @wrong("added `eps` to the deviation: it belongs to the variance, under the root")
    def eps_outside(x, eps=1e-5):
        return (x - x.mean((1, 2, 3), keepdim=True))/(x.var((1, 2, 3), keepdim=True, correction=0).sqrt() + eps)

    @wrong("left `eps` out: an image whose pixels are all alike has variance 0")
    def no_eps(x, eps=1e-5):
        return (x - x.mean((1, 2, 3), keepdim=True))/x.std((1, 2, 3), keepdim=True, correction=0)

    @wrong("did not take the mean away")
    def not_centred(x, eps=1e-5): return x/(x.var((1, 2, 3), keepdim=True, correction=0) + eps).sqrt()

    @wrong("took the statistics out of the graph: a gradient must come through them as well", "`detach` is for running statistics.")
    def detached(x, eps=1e-5):
        return (x - x.mean((1, 2, 3), keepdim=True).detach())/(x.var((1, 2, 3), keepdim=True, correction=0) + eps).sqrt().detach()


class drop_channels(Exercise):
    title, kind = "A dropout of channels", "implement"
    hints = ("Draw one number for each channel of each image; broadcasting spreads it over the pixels.",
             "`x.new_empty(n, c, 1, 1).bernoulli_(1 - p)` is 1 with the chance that a channel stays.",
             "What stays is divided by 1 - p. At p = 1 nothing stays, and 0/0 must not come out.")
    then = "After the same `set_seed`, `F.dropout2d(x, p)` gives the same numbers."
    gradients = False
    forbidden = ("dropout", "dropout2d", "feature_dropout")

    def cases(randn):
        ones = torch.ones(40, 50, 2, 2).double()
        yield "a quarter is dropped", (ones, .25)
        yield "three quarters are dropped", (ones, .75)
        yield "nothing is dropped", (randn(2, 3, 2, 2), 0.)
        yield "all is dropped", (randn(2, 3, 2, 2), 1.)
        yield "numbers of all kinds", (randn(50, 40, 3, 2), .5)
        yield "float32", (torch.ones(50, 40, 1, 2), .5)
        yield "an empty batch", (torch.zeros(0, 3, 2, 2).double(), .5)

    def run(answer, x, p):
        torch.manual_seed(0)
        out = answer(x, p)
        if not isinstance(out, torch.Tensor) or out.shape != x.shape: return {"output": out}
        gone = out == 0
        share = gone.double().mean() if x.numel() else torch.tensor(0.)
        whole = gone.flatten(2).all(2) == gone.flatten(2).any(2)
        pattern = gone.flatten(2).all(2)
        varied = lambda dim: "yes" if 0 < p < 1 and x.numel() and bool((pattern.any(dim) & ~pattern.all(dim)).any()) else "no"
        kept, where = out[~gone], x[~gone]
        ratio = (kept/where) if kept.numel() else x.new_zeros(0)
        factor = "nothing is kept" if not kept.numel() else round(float(ratio.mean()), 3)
        if kept.numel() and float((ratio - ratio.mean()).abs().max()) > 1e-3: factor = "not one number"
        if out.isnan().any(): factor = "nan"
        return {"number of nans": int(out.isnan().sum()), "way channels are dropped": "whole" if whole.all() else "in parts", "choice in another image (another?)": varied(0), "choice for another channel (another?)": varied(1),
                "share that is 0": "as asked for" if abs(float(share) - (p if x.numel() else 0)) < .05 else round(float(share), 1),
                "factor of what is kept": factor, "dtype": str(out.dtype)}

    def solution(x, p):
        if p == 1: return torch.zeros_like(x)
        kept = x.new_empty(*x.shape[:2], 1, 1).bernoulli_(1 - p)
        return x*kept/(1 - p)

    def second(x, p):
        dropped = torch.rand(x.shape[0], x.shape[1]) < p
        return x.masked_fill(dropped[..., None, None], 0.)*(1/(1 - p) if p < 1 else 1.)

    @wrong("dropped each pixel by itself: a channel goes as a whole, or stays", "Draw one number a channel, in the shape (n, c, 1, 1).")
    def pixels(x, p): return x*torch.empty_like(x).bernoulli_(1 - p)/(1 - p) if p < 1 else x*0

    @wrong("dropped the same channels of every image: each image draws its own", "The shape (1, c, 1, 1) draws once for all images.")
    def same_for_all(x, p): return x*x.new_empty(1, x.shape[1], 1, 1).bernoulli_(1 - p)/(1 - p) if p < 1 else x*0

    @wrong("dropped whole images: each channel is drawn by itself", "The shape (n, 1, 1, 1) draws once for all channels.")
    def images(x, p): return x*x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - p)/(1 - p) if p < 1 else x*0

    @wrong("did not divide what stays by 1 - p: in evaluation mode the next layer would see more than it has learned on")
    def not_scaled(x, p): return x*x.new_empty(*x.shape[:2], 1, 1).bernoulli_(1 - p)

    @wrong("kept with chance `p`: it is the chance to be dropped", "`bernoulli_(q)` is 1 with chance q.")
    def kept_with_p(x, p): return x*x.new_empty(*x.shape[:2], 1, 1).bernoulli_(p)/(1 - p) if p < 1 else x*0

    @wrong("divided by `p`: what stays is the share 1 - p, and that is to be made up for")
    def by_p(x, p): return x*x.new_empty(*x.shape[:2], 1, 1).bernoulli_(1 - p)/p if p else x

    @wrong("multiplied by 1 - p: that makes the output smaller still")
    def multiplied(x, p): return x*x.new_empty(*x.shape[:2], 1, 1).bernoulli_(1 - p)*(1 - p)

    @wrong("did not think of p = 1: nothing stays, and 0 divided by 0 is nan")
    def nan_at_one(x, p): return x*(x.new_empty(*x.shape[:2], 1, 1).bernoulli_(1 - p)/torch.tensor(1 - p))


class fold_norm(Exercise):
    title, kind = "Fold a batch normalization", "derive"
    hints = ("In evaluation mode norm(y) = (y - mean)/sqrt(var + eps) * weight + bias, with the running statistics. Which factor does y get?",
             "`factor = norm.weight/(norm.running_var + norm.eps).sqrt()`, one number for each output channel. Each kernel is multiplied by its own: what shape must it have?",
             "The new bias is (old bias - running mean) times the factor, plus norm's bias. There may be no old bias.")
    then = "Fold the two layers of the last section, and compare on `images[:9]`."
    gradients = False
    compare = dict(rtol=1e-5, atol=1e-6)

    def cases(randn):
        base = dict(kernel=1, stride=1, padding=0, groups=1, bias=True, eps=1e-5)
        yield "one channel, a kernel of one pixel", ((1, 1), base)
        yield "three channels to three", ((3, 3), base)
        yield "no bias", ((2, 3), base | dict(bias=False))
        yield "a large eps", ((2, 3), base | dict(eps=1.))
        yield "a kernel, a stride and padding", ((2, 3), base | dict(kernel=3, stride=2, padding=1))
        yield "two groups", ((4, 6), base | dict(kernel=3, groups=2))

    def run(answer, channels, options):
        torch.manual_seed(1)
        o = dict(options)
        norm = BatchNorm2d(channels[1], eps=o.pop("eps")).double()
        conv = Conv2d(*channels, o.pop("kernel"), **o).double()
        with torch.no_grad():
            for t in (norm.weight, norm.bias, norm.running_mean): t.normal_().add_(2)
            norm.running_var.uniform_(2, 5)
            if conv.bias is not None: conv.bias.add_(1)
        norm.eval()
        before = {k: v.clone() for m in (conv, norm) for k, v in m.state_dict(prefix=type(m).__name__).items()}
        x = torch.randn(1, channels[0], 3, 3).double()
        with torch.no_grad():
            new = answer(conv, norm)
            if new is None: return None
            facts = {"output": new(x), "shape of its weight": tuple(new.weight.shape), "bias (is there one?)": new.bias is not None}
        after = {k: v for m in (conv, norm) for k, v in m.state_dict(prefix=type(m).__name__).items()}
        return facts | {"state of the two layers that came in (unchanged?)": all(torch.equal(before[k], after[k]) for k in before) and new is not conv,
                        "absence of a normalization": not any(isinstance(m, (BatchNorm2d, torch.nn.BatchNorm2d)) for m in new.modules())}

    @torch.no_grad()
    def solution(conv, norm):
        factor = norm.weight/(norm.running_var + norm.eps).sqrt()
        new = Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups)
        new.weight = torch.nn.Parameter(conv.weight*factor.view(-1, 1, 1, 1))
        bias = 0 if conv.bias is None else conv.bias
        new.bias = torch.nn.Parameter(norm.bias + (bias - norm.running_mean)*factor)
        return new

    def second(conv, norm):
        import copy
        new, factor = copy.deepcopy(conv), norm.weight*torch.rsqrt(norm.running_var + norm.eps)
        new.weight.data *= factor.detach()[:, None, None, None]
        old = torch.zeros_like(norm.bias) if conv.bias is None else conv.bias
        new.bias = torch.nn.Parameter((norm.bias + (old - norm.running_mean)*factor).detach())
        return new

    def made(conv, weight, bias):
        new = Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups)
        new.weight, new.bias = torch.nn.Parameter(weight.detach()), torch.nn.Parameter(bias.detach())
        return new

    def parts(conv, norm):
        factor = norm.weight/(norm.running_var + norm.eps).sqrt()
        return factor, 0 if conv.bias is None else conv.bias

    @wrong("forgot the running mean: it is taken away before the factor")
    def no_mean(conv, norm):
        f, old = fold_norm.parts(conv, norm)
        return fold_norm.made(conv, conv.weight*f.view(-1, 1, 1, 1), norm.bias + old*f)

    @wrong("left the old bias as it is: the factor multiplies it too, as all that comes out of the convolution")
    def bias_not_scaled(conv, norm):
        f, old = fold_norm.parts(conv, norm)
        return fold_norm.made(conv, conv.weight*f.view(-1, 1, 1, 1), norm.bias + old - norm.running_mean*f)

    @wrong("lost the convolution's bias: it is part of what the normalization sees")
    def bias_lost(conv, norm):
        f, _ = fold_norm.parts(conv, norm)
        return fold_norm.made(conv, conv.weight*f.view(-1, 1, 1, 1), norm.bias - norm.running_mean*f)

    @wrong("divided by the running variance: the deviation is its root")
    def no_root(conv, norm):
        f = norm.weight/(norm.running_var + norm.eps)
        return fold_norm.made(conv, conv.weight*f.view(-1, 1, 1, 1), norm.bias + ((0 if conv.bias is None else conv.bias) - norm.running_mean)*f)

    @wrong("left `eps` out, which stands under the root beside the variance")
    def no_eps(conv, norm):
        f = norm.weight/norm.running_var.sqrt()
        return fold_norm.made(conv, conv.weight*f.view(-1, 1, 1, 1), norm.bias + ((0 if conv.bias is None else conv.bias) - norm.running_mean)*f)

    @wrong("left out norm's own weight: after the division comes its scale")
    def no_weight(conv, norm):
        f = 1/(norm.running_var + norm.eps).sqrt()
        return fold_norm.made(conv, conv.weight*f.view(-1, 1, 1, 1), norm.bias + ((0 if conv.bias is None else conv.bias) - norm.running_mean)*f)

    @wrong("left out norm's own bias, its shift")
    def no_shift(conv, norm):
        f, old = fold_norm.parts(conv, norm)
        return fold_norm.made(conv, conv.weight*f.view(-1, 1, 1, 1), (old - norm.running_mean)*f)

    @wrong("scaled the weight only, and kept the convolution's bias")
    def weight_only(conv, norm):
        f, old = fold_norm.parts(conv, norm)
        return fold_norm.made(conv, conv.weight*f.view(-1, 1, 1, 1), norm.bias*0 + old)

    @wrong("multiplied along the wrong dimension: the factor belongs to the output channels, the first of the weight", "`factor[:, None, None, None]` has the shape (out, 1, 1, 1).")
    def wrong_dimension(conv, norm):
        f, old = fold_norm.parts(conv, norm)
        return fold_norm.made(conv, conv.weight*f.view(1, -1, 1, 1), norm.bias + (old - norm.running_mean)*f)

    @wrong("changed the convolution that came in: a new one is asked for, so that both can be compared", "`copy.deepcopy(conv)`, or a new `Conv2d`.")
    def in_place(conv, norm):
        f, old = fold_norm.parts(conv, norm)
        conv.weight, conv.bias = torch.nn.Parameter(conv.weight*f.view(-1, 1, 1, 1)), torch.nn.Parameter(norm.bias + (old - norm.running_mean)*f)
        return conv

    @wrong("forgot stride, padding or groups: the new convolution must have the settings of the old one")
    def no_settings(conv, norm):
        f, old = fold_norm.parts(conv, norm)
        new = Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size)
        new.weight, new.bias = torch.nn.Parameter(conv.weight*f.view(-1, 1, 1, 1)), torch.nn.Parameter(norm.bias + (old - norm.running_mean)*f)
        return new
