"Lesson 12, schedules."
import math

import torch

from fdl.optim import SGD
from fdl.optim.lr_scheduler import LRScheduler

from .engine import Exercise, wrong


class Trapezoid(Exercise):
    title, kind, gradients = "A trapezoid", "implement", False
    hints = ("`LRScheduler.__init__` asks for the first factor at once: what must be known before it is called?",
             "`factor` is one line: `min` takes three numbers, the two slopes and 1.")
    then = "Draw it with `curve`, and enter it in the comparison."

    def cases(randn):
        yield "one step", (1,)
        yield "ten steps", (10,)
        yield "less than ten", (4,)
        yield "forty", (40,)

    def run(answer, total_steps):
        opt = SGD([torch.ones(1, requires_grad=True)], lr=2.)
        schedule, rates = answer(opt, total_steps=total_steps), []
        for _ in range(total_steps):
            rates.append(float(opt.param_groups[0]["lr"]))
            opt.step()
            schedule.step()
        return {"rates, where the first rate is 2": rates}

    class solution(LRScheduler):
        def __init__(self, optimizer, total_steps):
            self.total_steps = total_steps
            super().__init__(optimizer)

        def factor(self, t): return min(1, (t + 1)/(0.1*self.total_steps), (self.total_steps - t)/(0.3*self.total_steps))

    class second(LRScheduler):
        def __init__(self, optimizer, total_steps):
            self.n = total_steps
            LRScheduler.__init__(self, optimizer)

        def factor(self, t):
            if t + 1 < self.n/10: return 10*(t + 1)/self.n
            return 1. if self.n - t > 0.3*self.n else (self.n - t)/self.n/0.3

    @wrong("called `super().__init__` first: it asks for `factor(0)`, which needs `total_steps`", "Note `total_steps` before that call.")
    class too_late(solution):
        def __init__(self, optimizer, total_steps):
            LRScheduler.__init__(self, optimizer)
            self.total_steps = total_steps

    @wrong("began with t and not with t + 1: the first step has the rate 0 and teaches nothing")
    class from_zero(solution):
        def factor(self, t):
            n = self.total_steps
            return min(1, t/(0.1*n), (n - t)/(0.3*n))

    @wrong("forgot that the factor stops at 1: the slopes go on above it", "The least of three, one of them 1.")
    class no_level(solution):
        def factor(self, t):
            n = self.total_steps
            return min((t + 1)/(0.1*n), (n - t)/(0.3*n))

    @wrong("took the largest of the three and not the least")
    class largest(solution):
        def factor(self, t):
            n = self.total_steps
            return max(1, (t + 1)/(0.1*n), (n - t)/(0.3*n))

    @wrong("exchanged the two slopes: it rises in a tenth of the steps, and falls in three tenths")
    class exchanged(solution):
        def factor(self, t):
            n = self.total_steps
            return min(1, (t + 1)/(0.3*n), (n - t)/(0.1*n))

    @wrong("fell to 0 a step too early: the last step, t = n - 1, should still move")
    class zero_at_last(solution):
        def factor(self, t):
            n = self.total_steps
            return min(1, (t + 1)/(0.1*n), (n - 1 - t)/(0.3*n))

    @wrong("never let it fall", "What is the third of the three numbers?")
    class no_fall(solution):
        def factor(self, t): return min(1, (t + 1)/(0.1*self.total_steps))


class restarts(Exercise):
    title, kind, gradients = "Warm restarts", "derive", False
    hints = ("Which step of its own cosine is step t? `%` tells.", "Half a cosine, from 1 to -1, becomes 1 to 0 by `(1 + cos)/2`.")
    then = "Compare `curve(LambdaLR, lr_lambda=restarts)` with `curve(theirs.CosineAnnealingWarmRestarts, T_0=25)`."

    def cases(randn):
        yield "the first step", (0, 4)
        yield "half of a cosine", (2, 4)
        yield "its last step", (3, 4)
        yield "it begins again", (4, 4)
        yield "once more, later", (13, 5)
        yield "every step", (7, 1)
        yield "`T` left out", (30, None)

    def run(answer, t, T): return float(answer(t) if T is None else answer(t, T))

    def solution(t, T=25): return (1 + math.cos(math.pi*(t % T)/T))/2

    def second(t, T=25): return torch.cos(torch.tensor(t/T % 1, dtype=torch.float64)*torch.pi/2)**2

    @wrong("let the cosine go on after `T` steps: it climbs back, and does not begin again", "`t % T`.")
    def no_restart(t, T=25): return (1 + math.cos(math.pi*t/T))/2

    @wrong("took a whole wave: it should only fall, from 1 to 0, and then jump", "Half a wave is `math.pi`.")
    def whole_wave(t, T=25): return (1 + math.cos(2*math.pi*t/T))/2

    @wrong("left the cosine between -1 and 1: a factor below 0 climbs the loss")
    def not_moved(t, T=25): return math.cos(math.pi*(t % T)/T)

    @wrong("made it rise: it begins at 1")
    def rises(t, T=25): return (1 - math.cos(math.pi*(t % T)/T))/2

    @wrong("fell all the way to 0 in the last step: divide by `T`, not by `T - 1`")
    def to_zero(t, T=25): return (1 + math.cos(math.pi*(t % T)/max(1, T - 1)))/2

    @wrong("took degrees: `math.cos` wants radians")
    def degrees(t, T=25): return (1 + math.cos(180*(t % T)/T))/2

    @wrong("stopped at 0 after the first cosine")
    def one_only(t, T=25): return (1 + math.cos(math.pi*min(t/T, 1)))/2

    @wrong("fell in a straight line: a cosine is asked for")
    def line(t, T=25): return 1 - (t % T)/T


def bend(r, at): return 2/(1 + (r/at)**2)


class steepest_lr(Exercise):
    title, kind, gradients = "The steepest rate", "implement", False
    hints = ("The rates grow by the same factor from each to the next: on the logarithmic axis they are equally far apart.",
             "Average each loss with its two neighbours, take differences of the averages, find the lowest.",
             "Which of `rates` belongs to the first average, if it takes the losses 0, 1 and 2?")
    then = "Run it on what `lr_find` returns. Is it larger than the rate that the lesson chose?"

    def cases(randn):
        rates = [10**(i/20 - 4) for i in range(100)]
        flat = lambda at: [bend(r, at) for r in rates]
        dented = lambda i: [x + 0.3*(i == j) for j, x in enumerate(flat(0.1))]
        yield "a curve without noise", (rates, flat(0.1), 0.1)
        yield "another", (rates, flat(0.01), 0.01)
        yield "it explodes at the end", (rates, [bend(r, 0.01) + r*r/4 for r in rates], 0.01)
        yield "one bad batch", (rates, dented(20), 0.1)
        yield "one bad batch, late", (rates, dented(90), 0.1)

    def run(answer, rates, losses, around):
        rate = float(answer(list(rates), list(losses)))
        if not any(math.isclose(rate, r, rel_tol=1e-5) for r in rates): return {"rate": f"{rate:.3g}, which is none of the rates"}
        near = around/1.3 < rate < around*1.3
        return {"rate": f"near {around}" if near else f"{rate:.3g}"}

    def solution(rates, losses):
        smooth = torch.tensor(losses, dtype=torch.float64).unfold(0, 3, 1).mean(1)
        return rates[smooth.diff().argmin() + 1]

    def second(rates, losses):
        near = [losses[max(0, i - 1):i + 2] for i in range(len(losses))]
        mean = [sum(x)/len(x) for x in near]
        i = min(range(1, len(mean) - 1), key=lambda i: mean[i + 1] - mean[i - 1])
        return rates[i]

    @wrong("divided by the steps of the rate itself: on the logarithmic axis they are all alike", "Leave the division out.")
    def linear_axis(rates, losses):
        smooth = torch.tensor(losses, dtype=torch.float64).unfold(0, 3, 1).mean(1)
        return rates[(smooth.diff()/torch.tensor(rates, dtype=torch.float64)[1:-1].diff()).argmin() + 1]

    @wrong("did not average first: one bad batch decides")
    def not_smoothed(rates, losses): return rates[torch.tensor(losses, dtype=torch.float64).diff().argmin()]

    @wrong("took the rate with the lowest loss, where it falls no more")
    def lowest(rates, losses):
        return rates[torch.tensor(losses, dtype=torch.float64).unfold(0, 3, 1).mean(1).argmin() + 1]

    @wrong("took the place where the loss rises fastest: a fall is a negative difference", "`argmin`.")
    def rises(rates, losses):
        return rates[torch.tensor(losses, dtype=torch.float64).unfold(0, 3, 1).mean(1).diff().argmax() + 1]

    @wrong("dropped the sign: an explosion is steep too, but upwards")
    def no_sign(rates, losses):
        return rates[torch.tensor(losses, dtype=torch.float64).unfold(0, 3, 1).mean(1).diff().abs().argmax() + 1]

    @wrong("returned the place in the list, and not the rate there")
    def place(rates, losses):
        return torch.tensor(losses, dtype=torch.float64).unfold(0, 3, 1).mean(1).diff().argmin() + 1

    @wrong("took the logarithm of the loss too: only the rates are meant on a logarithmic axis")
    def log_loss(rates, losses):
        return rates[torch.tensor(losses, dtype=torch.float64).unfold(0, 3, 1).mean(1).log().diff().argmin() + 1]
