"Lesson 09, datasets and data loaders."
import random

import numpy as np
import torch

from fdl.data import TensorDataset

from .engine import Exercise, wrong


def twice(answer, *args):
    "What two calls return, after a seed; the global generators are put back."
    before, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(9)
            random.seed(9)
            np.random.seed(9)
            return [answer(*args), answer(*args)]
    finally:
        random.setstate(before)
        np.random.set_state(numpys)


class balanced(Exercise):
    title, kind = "Balanced draws", "implement"
    hints = ("Give each row a weight, such that the weights of each label sum to the same.",
             "A row of a label that occurs k times gets the weight 1/k.",
             "`torch.multinomial(weights, num_samples, replacement=True)` draws rows by their weights.")
    then = "Hand it to a `DataLoader` as its `sampler`. How often does an epoch show one rare image?"
    gradients = False

    def cases(randn):
        t = torch.tensor
        yield "given in the exercise", (t([0]*900 + [1]*90 + [2]*10), 3000)
        yield "the labels mixed", (t([[2] + [0]*7 + [1]*2]).repeat(40, 1).flatten(), 1200)
        yield "two labels, 0 and 5", (t([5]*20 + [0]*380), 600)
        yield "one label", (t([3]*50), 200)
        yield "one draw", (t([0, 1, 1]), 1)

    def run(answer, labels, num_samples):
        drawn = twice(answer, labels, num_samples)
        if any(d is None for d in drawn): return None
        drawn = [[int(i) for i in d] for d in drawn]
        first = drawn[0]
        if any(not 0 <= i < len(labels) for i in first): return {"range of the indices": "not that of `labels`"}
        facts = {"range of the indices": "that of `labels`", "number of draws": len(first)}
        if num_samples < 100: return facts
        values = labels.unique().tolist()
        share = num_samples/len(values)
        odd = lambda part, mean: str([v for v in values if abs(part.count(v) - mean) > 5*mean**.5])
        found = labels[first].tolist()
        common = max(values, key=labels.tolist().count)
        m = int((labels == common).sum())
        expected = m*(1 - (1 - 1/m)**share)     # different ones among `share` draws of m
        return facts | {"list of labels that come too often or too rarely": odd(found, share),
                        f"number of different rows of label {common}": "large enough" if len({i for i in first if labels[i] == common}) > .8*expected else "too small",
                        "list of labels that come too often or too rarely in the first third of the draws": odd(found[:num_samples//3], share/3),
                        "second call": "draws others" if drawn[0] != drawn[1] else "draws the same again"}

    def solution(labels, num_samples):
        weights = torch.zeros(len(labels))
        for label in labels.unique(): weights[labels == label] = 1/(labels == label).sum()
        return torch.multinomial(weights, num_samples, replacement=True).tolist()

    def second(labels, num_samples):
        rows = [torch.nonzero(labels == label).flatten().tolist() for label in set(labels.tolist())]
        return [random.choice(random.choice(rows)) for _ in range(num_samples)]

    @wrong("drew every row with the same chance: a rare label stays rare", "The rows of a label of 10 need more weight than those of one of 900.")
    def uniform(labels, num_samples): return torch.randint(len(labels), (num_samples,)).tolist()

    @wrong("weighted a row by how often its label occurs: it must be the inverse, or the rare become rarer", "1/k, not k.")
    def by_count(labels, num_samples):
        return torch.multinomial(labels.bincount()[labels].double(), num_samples, replacement=True).tolist()

    @wrong("drew labels and not rows: the answer holds indices into `labels`", "Give `multinomial` a weight for each row.")
    def labels_drawn(labels, num_samples):
        return torch.multinomial((labels.bincount() > 0).double(), num_samples, replacement=True).tolist()

    @wrong("drew without replacement: ten rows cannot be drawn a thousand times", "`replacement=True`.")
    def without_replacement(labels, num_samples):
        return torch.multinomial(1/labels.bincount()[labels].double(), num_samples).tolist()

    @wrong("took the same row of a label again and again: all its rows must have their turn")
    def one_row(labels, num_samples):
        firsts = [labels.tolist().index(v) for v in labels.unique().tolist()]
        return [random.choice(firsts) for _ in range(num_samples)]

    @wrong("drew label after label: a batch then holds one label only", "Shuffle at the end, or draw the label anew each time.")
    def in_order(labels, num_samples):
        values, found = labels.unique(), []
        for k, v in enumerate(values):
            rows = (labels == v).nonzero()[:, 0]
            n = num_samples*(k + 1)//len(values) - num_samples*k//len(values)
            found += rows[torch.randint(len(rows), (n,))].tolist()
        return found

    @wrong("seeded the draw inside: every epoch then sees the same rows", "Leave the seed to whoever calls.")
    def seeded_inside(labels, num_samples):
        generator = torch.Generator().manual_seed(0)
        return torch.multinomial(1/labels.bincount()[labels].double(), num_samples, replacement=True, generator=generator).tolist()

    @wrong("drew as many as there are labels, and not `num_samples`")
    def as_many_as_labels(labels, num_samples): return balanced.solution(labels, len(labels))


def buckets(lengths, batch_size, window, shuffle=True, order=None, sort=True, cut=None, drop=False):
    "Batches of similar lengths, with one thing different."
    n = len(lengths)
    rows = torch.randperm(n).tolist() if order is None else order
    size = cut or window*batch_size
    if sort: rows = [i for k in range(0, n, size) for i in sorted(rows[k:k + size], key=lambda i: lengths[i])]
    found = [rows[k:k + batch_size] for k in range(0, n, batch_size)]
    if drop and len(found[-1]) < batch_size: found.pop()
    if shuffle: random.shuffle(found)
    return found


class bucket_batches(Exercise):
    title, kind = "Batches of similar lengths", "implement"
    hints = ("Four steps: `torch.randperm`, sort each window, cut, shuffle the batches.",
             "A window has `window * batch_size` indices; `sorted(part, key=lambda i: lengths[i])` sorts one.",
             "Shuffle the list of batches with `random.shuffle`, or by another `torch.randperm`.")
    then = "Try `window` 1, 5, 50 and 500: what do you gain, and what do you lose?"
    gradients = False

    def cases(randn):
        yield "ten lengths, batches of two", (torch.tensor([5, 1, 4, 2, 3, 9, 7, 8, 6, 10]), 2, 50)
        yield "a short last batch", (torch.tensor([5, 1, 4, 2, 3]), 2, 2)
        yield "fewer than a batch", (torch.tensor([2, 1]), 4, 50)
        yield "given in the exercise, like it", (torch.arange(10_000)*37 % 100 + 1, 32, None)
        yield "lengths that all differ", (torch.arange(1, 1601), 8, 20)
        yield "windows of one batch", (torch.arange(1, 1601)*7 % 1601, 8, 1)

    def run(answer, lengths, batch_size, window):
        lengths = lengths.tolist()
        drawn = twice(answer, list(lengths), batch_size, *([] if window is None else [window]))
        if any(d is None for d in drawn): return None
        one, two = [[[int(i) for i in b] for b in d] for d in drawn]
        n = len(lengths)
        once = sorted(i for b in one for i in b) == list(range(n))
        facts = {"set of all indices": "each once" if once else "some are missing, or come twice",
                 "list of sizes other than `batch_size`": str(sorted(len(b) for b in one if len(b) != batch_size)[:5])}
        if n < 100 or not once: return facts
        places = sum(len(b)*max(lengths[i] for i in b) for b in one)
        filling = 1 - sum(lengths)/places
        rises = sum(max(lengths[i] for i in a) > max(lengths[i] for i in b) for a, b in zip(one, one[1:]))/(len(one) - 1)
        facts["filling"] = "little" if filling < 1.5/(window or 50) else "much" if filling < .4 else "as much as in random order"
        if window == 1: facts["filling"] = "as much as in random order" if filling > .3 else "less than in windows of one batch"
        return facts | {"order of the batches": "random" if window == 1 or .3 < rises < .7 else "by length",
                        "second call": "puts the same together" if {frozenset(b) for b in one} == {frozenset(b) for b in two} else "puts others together"}

    def solution(lengths, batch_size, window=50):
        order, found = torch.randperm(len(lengths)).tolist(), []
        for start in range(0, len(order), window*batch_size):
            part = sorted(order[start:start + window*batch_size], key=lambda i: lengths[i])
            found += [part[k:k + batch_size] for k in range(0, len(part), batch_size)]
        return [found[k] for k in torch.randperm(len(found))]

    def second(lengths, batch_size, window=50):
        size, n = window*batch_size, len(lengths)
        place = list(range(n))
        random.shuffle(place)
        order = sorted(range(n), key=lambda i: (place[i]//size, lengths[i]))
        found = [order[k:k + batch_size] for k in range(0, n, batch_size)]
        random.shuffle(found)
        return found

    @wrong("did not shuffle the batches: from window to window the short ones come first, the long ones last", "Shuffle the list of batches at the end.")
    def not_shuffled(lengths, batch_size, window=50): return buckets(lengths, batch_size, window, shuffle=False)

    @wrong("sorted all lengths at once: the same sequences then meet in every epoch", "Sort within windows of `window` batches of a random order.")
    def sorted_whole(lengths, batch_size, window=50): return buckets(lengths, batch_size, window, cut=len(lengths))

    @wrong("only sorted, and drew nothing: every epoch is the same, from short to long", "Begin with `torch.randperm`, and shuffle the batches at the end.")
    def only_sorted(lengths, batch_size, window=50):
        return buckets(lengths, batch_size, window, shuffle=False, order=list(range(len(lengths))), cut=len(lengths))

    @wrong("cut a random order, and sorted nothing: long and short sequences meet in a batch")
    def not_sorted(lengths, batch_size, window=50): return buckets(lengths, batch_size, window, sort=False)

    @wrong("did not begin with a random order: the same sequences then meet in every epoch")
    def no_random_order(lengths, batch_size, window=50): return buckets(lengths, batch_size, window, order=list(range(len(lengths))))

    @wrong("took windows of `window` indices: a window is `window` batches", "`window * batch_size` indices.")
    def small_windows(lengths, batch_size, window=50): return buckets(lengths, batch_size, window, cut=window)

    @wrong("left out the short last batch: every index comes once")
    def short_left_out(lengths, batch_size, window=50): return buckets(lengths, batch_size, window, drop=True)

    @wrong("returned lengths: a batch is a list of indices, and the loader asks the dataset for these")
    def lengths_returned(lengths, batch_size, window=50):
        return [[lengths[i] for i in b] for b in buckets(lengths, batch_size, window)]

    @wrong("returned one long list: it must be cut into batches")
    def not_cut(lengths, batch_size, window=50): return [i for b in buckets(lengths, batch_size, window) for i in b]


class NoisyDigits(Exercise):
    title, kind = "Noise that an index fixes", "extend"
    hints = ("Make a new generator in `__getitem__`, and seed it with the index.",
             "`torch.randn(n, generator=generator)` draws from that one, and leaves the global generator alone.",
             "`torch.Generator().manual_seed(i)`; then add the noise to `self.tensors[0][i]`, as a new tensor.")
    then = "Give it to a `DataLoader` with `shuffle=True`. Does the order change a single pixel?"
    gradients = False

    def cases(randn):
        x = (torch.arange(12)[:, None]*torch.ones(784)/12)
        yield "six digits", (x[:6], torch.arange(6))
        yield "digits with labels of their own", (x, torch.arange(12) % 10 + 3)
        yield "grey everywhere", (torch.ones(8, 784)/2, torch.arange(8) % 2)
        yield "ink everywhere", (torch.ones(8, 784), torch.arange(8) % 3)

    def run(answer, x, y):
        def read():
            data = answer(x, y)
            before = torch.get_rng_state()
            items = [data[i] for i in (3, 3, 4, 0)]
            untouched = torch.equal(before, torch.get_rng_state())
            torch.manual_seed(10)
            return items, answer(x, y)[3], answer(x + 5, y)[3], untouched
        (items, other, darker, untouched), _ = twice(read)
        if not isinstance(items[0], (tuple, list)): return items[0]
        facts = {"number of parts of an item": len(items[0])}
        if len(items[0]) != 2: return facts
        images, labels = zip(*items)
        facts |= {"shape of an image": str(list(images[0].shape)), "list of the labels of items 3, 3, 4 and 0": str([int(v) for v in labels])}
        if images[0].shape != x[0].shape: return facts
        noises = [a - x[i] for a, i in zip(images, (3, 3, 4, 0))]
        apart = lambda a, b: "different" if float((a - b).abs().max()) > 1e-4 else "the same"
        alike = lambda a, b: "the same" if torch.equal(a, b) else "different"
        return facts | {"image of a darker digit": alike(other[0], darker[0]),
                        "noise": "missing" if noises[0].abs().max() < 1e-4 else "one number" if noises[0].std() < 1e-4 else "there",
                        "second reading of `data[3]`": alike(images[0], images[1]),
                        "`data[3]` of a new dataset after another seed": alike(images[0], other[0]),
                        "noise of `data[4]`, beside that of `data[3]`,": apart(noises[0], noises[2]),
                        "noise of `data[0]`, beside that of `data[4]`,": apart(noises[3], noises[2]),
                        "global generator": "left alone" if untouched else "moved or seeded"}

    class solution(TensorDataset):
        def __getitem__(self, i):
            image, label = self.tensors[0][i], self.tensors[1][i]
            generator = torch.Generator().manual_seed(i)
            return image + .1*torch.randn(image.shape, generator=generator), label

    class second(TensorDataset):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            with torch.random.fork_rng():
                torch.manual_seed(1000 + i)
                return image + torch.rand(784), label

    @wrong("drew the noise from the global generator, anew at each reading", "Make a generator of its own in `__getitem__`, and seed it with the index.")
    class anew(TensorDataset):
        def __getitem__(self, i):
            noise = torch.randn(784)
            return self.tensors[0][i] + noise, self.tensors[1][i]

    @wrong("seeded the global generator: whoever draws after that, as a shuffle does, gets the same each time", "`torch.Generator().manual_seed(i)` is a generator of its own.")
    class global_seed(TensorDataset):
        def __getitem__(self, i):
            torch.manual_seed(i)
            noise = torch.randn(784)
            return self.tensors[0][i] + noise, self.tensors[1][i]

    @wrong("seeded with the same number for all: every image gets the same noise", "The seed is the index.")
    class one_seed(TensorDataset):
        def __getitem__(self, i):
            noise = torch.randn(784, generator=torch.Generator().manual_seed(0))
            return self.tensors[0][i] + noise, self.tensors[1][i]

    @wrong("made one generator for the whole dataset: the noise then hangs on the order of reading", "Make it in `__getitem__`.")
    class one_generator(TensorDataset):
        def __init__(self, *tensors):
            super().__init__(*tensors)
            self.generator = torch.Generator().manual_seed(0)
        def __getitem__(self, i): return self.tensors[0][i] + torch.randn(784, generator=self.generator), self.tensors[1][i]

    @wrong("added the noise to the stored image, so that it grows with each reading", "`image + noise` makes a new tensor; `+=` changes the one in the dataset.")
    class in_place(TensorDataset):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            image += torch.randn(784, generator=torch.Generator().manual_seed(i))
            return image, label

    @wrong("drew one number for all pixels: the digit gets paler or darker, but not noisy", "Draw as many numbers as there are pixels.")
    class one_number(TensorDataset):
        def __getitem__(self, i):
            noise = torch.randn(1, generator=torch.Generator().manual_seed(i))
            return self.tensors[0][i] + noise, self.tensors[1][i]

    @wrong("returned the image alone: an item is the image and its label")
    class no_label(TensorDataset):
        def __getitem__(self, i): return NoisyDigits.solution.__getitem__(self, i)[0]

    @wrong("returned the digit as it is: there is no noise on it")
    class clean(TensorDataset):
        def __getitem__(self, i): return super().__getitem__(i)

    @wrong("returned the noise without the digit under it", "Add the two.")
    class noise_only(TensorDataset):
        def __getitem__(self, i): return torch.randn(784, generator=torch.Generator().manual_seed(i)), self.tensors[1][i]
