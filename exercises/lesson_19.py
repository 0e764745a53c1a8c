"Lesson 19, training fast."
import math
import random

import torch
import torch.nn.functional as F

from .engine import Exercise, wrong

class seeds_needed(Exercise):
    title, kind, gradients = "How many seeds", "derive", False
    hints = ("The variance of a mean of m runs is the variance of one over m. Two means that know nothing of each other: what is the variance of their difference?",
             "`delta` shall be at least `k` times the root of `(a*a + b*b)/m`. Solve for m, and round up.")
    then = "How many for the gains that this lesson measured?"

    def cases(randn):
        yield "no half of a run", (1., 1., 1., 1.1)
        yield "spreads of 1 and 2", (1., 1., 2., 1.9)
        yield "the larger spread first", (1., 3., 1., 1.5)
        yield "rounded up", (1., .6, .7, 2.)
        yield "a gain with a large part left over", (0.7, 1., 1., 2.)
        yield "a small gain", (0.1, .25, .5, 3.)
        yield "a loss: the sign does not matter", (-1., 1., 2., 2.1)
        yield "`k` left out", (0.5, 1.1, 2., None)

    def run(answer, delta, a, b, k):
        m = answer(delta, a, b) if k is None else answer(delta, a, b, k)
        return int(m) if float(m).is_integer() else float(m)

    def solution(delta, a, b, k=2): return math.ceil(k**2*(a**2 + b**2)/delta**2)

    def second(delta, a, b, k=2):
        m = 1
        while abs(delta)*math.sqrt(m) < k*math.hypot(a, b)*(1 - 1e-12): m += 1
        return m

    @wrong("added the spreads: it is the variances that add", "`a**2 + b**2`.")
    def spreads_added(delta, a, b, k=2): return math.ceil((k*(a + b)/delta)**2)

    @wrong("left the number as it came: half a run cannot be made, so round up")
    def not_rounded(delta, a, b, k=2): return k**2*(a**2 + b**2)/delta**2

    @wrong("rounded to the nearest: below the exact number the gain is too few deviations", "`math.ceil`.")
    def nearest(delta, a, b, k=2): return round(k**2*(a**2 + b**2)/delta**2)

    @wrong("did not square: a mean of m runs spreads less by the root of m")
    def not_squared(delta, a, b, k=2): return math.ceil(k*math.hypot(a, b)/abs(delta))

    @wrong("forgot that both means vary: only the first spread is in it")
    def first_only(delta, a, b, k=2): return math.ceil(k**2*a**2/delta**2)

    @wrong("took the mean of the two variances: the variance of a difference is their sum")
    def mean_variance(delta, a, b, k=2): return math.ceil(k**2*(a**2 + b**2)/2/delta**2)

    @wrong("counted the runs of both recipes together: m is for each")
    def both(delta, a, b, k=2): return 2*math.ceil(k**2*(a**2 + b**2)/delta**2)

    @wrong("subtracted the variances: of a difference, too, they add")
    def subtracted(delta, a, b, k=2): return math.ceil(k**2*abs(a**2 - b**2)/delta**2)

class running_average(Exercise):
    title, kind, gradients = "A running average", "implement", False
    hints = ("The first average is the first vector itself.", "Keep one tensor, and make a new one each time: `avg = beta*avg + (1 - beta)*v`.")
    then = "Average the weights over the last steps of a run. Does it help after one cycle?"

    def cases(randn):
        column = lambda *numbers: [torch.tensor([float(x)]).double() for x in numbers]
        yield "one vector", (column(3), .5)
        yield "0, 1, 1", (column(0, 1, 1), .5)
        yield "it does not start at 0", (column(2, 2, 4), .9)
        yield "`beta` is 0", (column(1, 5, 2), 0.)
        yield "`beta` is 1", (column(1, 5, 2), 1.)
        yield "longer vectors", ([randn(3) for _ in range(6)], .8)
        yield "no vectors", ([], .5)

    def run(answer, vectors, beta): return list(answer(vectors, beta))

    def solution(vectors, beta):
        averages = []
        for v in vectors: averages.append(beta*averages[-1] + (1 - beta)*v if averages else v)
        return averages

    def second(vectors, beta):
        if not vectors: return []
        average, out = vectors[0].clone(), []
        for v in vectors:
            average.lerp_(v, 1 - beta)
            out.append(average.clone())
        return out

    @wrong("started at zero: the first averages are too small", "Start at the first vector.")
    def from_zero(vectors, beta):
        average, out = 0, []
        for v in vectors: out.append(average := beta*average + (1 - beta)*v)
        return out

    @wrong("exchanged `beta` and 1 - `beta`: a large `beta` keeps the old average")
    def exchanged(vectors, beta): return running_average.solution(vectors, 1 - beta)

    @wrong("put the same tensor into the list each time: all of them show the last average", "`clone`, or make a new tensor.")
    def one_tensor(vectors, beta):
        if not vectors: return []
        average = vectors[0].clone()
        return [average.lerp_(v, 1 - beta) for v in vectors]

    @wrong("changed the first vector that came in", "`clone` it first.")
    def changed(vectors, beta):
        if not vectors: return []
        return [vectors[0].lerp_(v, 1 - beta).clone() for v in vectors]

    @wrong("returned the last average only: all of them are asked for")
    def last(vectors, beta): return running_average.solution(vectors, beta)[-1:]

    @wrong("took the mean of all so far, in which no vector fades")
    def mean(vectors, beta): return [torch.stack(vectors[:i]).mean(0) for i in range(1, len(vectors) + 1)]

    @wrong("mixed each vector with the one before it, and not with the average")
    def two_only(vectors, beta): return [beta*a + (1 - beta)*v for a, v in zip(vectors[:1] + vectors, vectors)]

    @wrong("did not weigh the new vector: the two weights add up to 1")
    def a_sum(vectors, beta):
        out = []
        for v in vectors: out.append(beta*out[-1] + v if out else v)
        return out


def moved(x, dy, dx):
    "The images, moved down by `dy` and right by `dx`; zeros come in."
    n = 4
    return F.pad(x, (n, n, n, n))[..., n - dy:n - dy + x.shape[-2], n - dx:n - dx + x.shape[-1]]


class shifted(Exercise):
    title, kind, gradients = "Random shifts", "implement", False
    hints = ("Draw two whole numbers from -`most` to `most`; `torch.randint` leaves its upper end out.",
             "`F.pad` puts `most` zeros around the images. Which 28 × 28 pixels do you cut out of that?")
    then = "Does it pay in one epoch? In three? Compare over as many seeds as exercise 1 asks for."

    def cases(randn):
        images = lambda n: randn(n, 1, 28, 28).abs().float() + .1
        yield "no shift", (images(1), 0)
        yield "one pixel", (images(1), 1)
        yield "three images", (images(3), 2)
        yield "`most` left out", (images(2), None)
        yield "no images", (images(0), 2)

    def run(answer, x, most):
        torch.manual_seed(19)
        random.seed(19)
        by, seen, wide = 2 if most is None else most, set(), range(-4, 5)
        for _ in range(60):
            y = answer(x.clone()) if most is None else answer(x.clone(), most)
            if y.shape != x.shape or y.dtype != x.dtype: return {"the images": f"come out as {tuple(y.shape)}, {y.dtype}"}
            if not len(x): continue
            order = sorted(((dy, dx) for dy in wide for dx in wide), key=lambda d: max(map(abs, d)))
            place = next((d for d in order if torch.equal(moved(x, *d), y)), None)
            if place is None:
                rolled = any(torch.equal(x.roll((dy, dx), (2, 3)), y) for dy, dx in order)
                apart = all(any(torch.equal(moved(a, *d), b) for d in order) for a, b in zip(x, y))
                return {"the images": "come in again on the other side" if rolled else "move each on its own" if apart else "are not moved by whole pixels, with zeros coming in"}
            seen.add(place)
        ends = lambda i: (min((d[i] for d in seen), default=0), max((d[i] for d in seen), default=0))
        return {"the images": "move together, and zeros come in", "least and most, down": ends(0), "least and most, to the right": ends(1)}

    def solution(x, most=2):
        dy, dx = torch.randint(0, 2*most + 1, (2,)).tolist()
        return F.pad(x, (most, most, most, most))[:, :, dy:dy + 28, dx:dx + 28]

    def second(x, most=2):
        dy, dx = random.randint(-most, most), random.randint(-most, most)
        y = torch.roll(x, (dy, dx), (-2, -1))
        if dy > 0: y[..., :dy, :] = 0
        if dy < 0: y[..., dy:, :] = 0
        if dx > 0: y[..., :dx] = 0
        if dx < 0: y[..., dx:] = 0
        return y

    @wrong("rolled the images: what leaves on one side comes in on the other, and zeros should", "`F.pad`, then cut.")
    def rolls(x, most=2): return x.roll(torch.randint(-most, most + 1, (2,)).tolist(), (2, 3))

    @wrong("left `most` itself out: the upper end of `torch.randint` is not drawn", "`most + 1`.")
    def end_left_out(x, most=2): return moved(x, *torch.randint(-most, max(most, 1 - most), (2,)).tolist())

    @wrong("moved only down and to the right: the direction should be random")
    def one_way(x, most=2): return moved(x, *torch.randint(0, most + 1, (2,)).tolist())

    @wrong("moved up and down only")
    def one_axis(x, most=2): return moved(x, int(torch.randint(-most, most + 1, ())), 0)

    @wrong("moved by `most` each time: the number of pixels should be random")
    def always_most(x, most=2): return moved(x, most, most)

    @wrong("padded, and cut nothing off: the images grow")
    def grows(x, most=2): return F.pad(x, (most, most, most, most))

    @wrong("moved each image on its own: one move for the batch is asked for")
    def each(x, most=2): return torch.cat([shifted.solution(a[None], most) for a in x]) if len(x) else x

    @wrong("returned the images as they were")
    def nothing(x, most=2): return x


class rounded_at_random(Exercise):
    title, kind, gradients = "Rounded at random", "implement", False
    hints = ("A bfloat16 is the upper 16 bits of a float32. `x.view(torch.int32)` shows all 32.",
             "The lower 16 bits say how far x is on its way to the next number. Add a random number of 16 bits: how often does it carry over?",
             "Then set the lower 16 bits to 0 with `& -65536`, and view as float32 again.")
    then = "Train with bfloat16 weights, and round each update in this way."

    def cases(randn):
        row = lambda *numbers: (torch.tensor(numbers),)
        yield "a bfloat16 already", row(1.)
        yield "a little above it", row(1.001)
        yield "a negative one", row(-1.001)
        yield "nearly the next", row(3.1405)
        yield "zero, small and large", row(0., 1.2345e-20, 98765.)
        yield "a matrix", (torch.tensor([[.3, -.7], [5.55, 1e-3]]),)

    def run(answer, x):
        torch.manual_seed(19)
        n = 4000
        many = x.expand(n, *x.shape).contiguous()
        y = answer(many.clone())
        known = {"dtype": y.dtype, "shape": y.shape}
        if y.dtype != torch.bfloat16 or y.shape != many.shape: return known
        bits = x.view(torch.int32)
        low, part = bits & -65536, (bits & 65535)/65536
        low, high = low.view(torch.float32), (low + 65536).view(torch.float32)
        up, down = y.float() == high, y.float() == low
        share, sd = up.float().mean(0), (part*(1 - part)/n).sqrt()
        off = ((share - part).abs() > 5*sd + 1e-6)
        together = bool(((up.float().mean(0) - .5).abs() == .5)[part > .01].any()) and bool((part > .01).any())
        mean = "right" if not off.any() else f"{share[off][0]:.1f} of the numbers away from 0, not {part[off][0]:.2f}"
        return known | {"each is one of the two neighbours": bool((up | down).all()), "all went the same way": together and bool(off.any()), "rounded away from 0": mean}

    def solution(x):
        noise = torch.randint(0, 65536, x.shape, dtype=torch.int32)
        return ((x.view(torch.int32) + noise) & -65536).view(torch.float32).bfloat16()

    def second(x):
        low = x.view(torch.int32) & -65536
        a, b = low.view(torch.float32), (low + 65536).view(torch.float32)
        return torch.where(torch.rand_like(x) < (x - a)/(b - a), b, a).bfloat16()

    @wrong("rounded to the nearest: it is the same each time, and not right on average")
    def nearest(x): return x.bfloat16()

    @wrong("cut the lower bits off, always towards 0", "Add noise before you cut.")
    def cuts(x): return (x.view(torch.int32) & -65536).view(torch.float32).bfloat16()

    @wrong("tossed a fair coin: the nearer neighbour must come more often")
    def coin(x):
        low = x.view(torch.int32) & -65536
        return (low + 65536*torch.randint(0, 2, x.shape, dtype=torch.int32)).view(torch.float32).bfloat16()

    @wrong("drew too little noise: it must reach over all of the lower 16 bits", "`torch.randint(0, 65536, ...)`.")
    def half_noise(x):
        return ((x.view(torch.int32) + torch.randint(0, 32768, x.shape, dtype=torch.int32)) & -65536).view(torch.float32).bfloat16()

    @wrong("added the noise and then rounded to the nearest: half a step too much", "Cut the lower bits off first.")
    def rounds_twice(x): return (x.view(torch.int32) + torch.randint(0, 65536, x.shape, dtype=torch.int32)).view(torch.float32).bfloat16()

    @wrong("drew one number for all: each entry needs its own")
    def one_draw(x): return ((x.view(torch.int32) + torch.randint(0, 65536, (), dtype=torch.int32)) & -65536).view(torch.float32).bfloat16()

    @wrong("left the answer in float32", "`.bfloat16()` at the end.")
    def stays(x): return rounded_at_random.solution(x).float()
