"Lesson 01, MNIST."
import builtins
import io
import pickle
from pathlib import Path

import numpy as np
import torch

from .engine import Exercise, wrong

ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}


class mean_ink(Exercise):
    title, kind = "Ink", "implement"
    hints = ("`x[y == 3]` holds the images of threes. What is their mean pixel?", "Do this for the ten classes in turn, and `torch.stack` the ten means.")
    then = "Which digit needs the most ink? Then answer the class whose ink is nearest to the image's."
    gradients = False

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        classes = torch.arange(10)
        yield "an image of one pixel for each class", (d(0., 1., 2., 3., 4., 5., 6., 7., 8., 9.)[:, None]/10, classes)
        yield "two pixels", (torch.arange(20).double().view(10, 2)/10, classes)
        yield "the classes in another order", (torch.arange(20).double().view(10, 2)/10, classes.flip(0))
        yield "two images of class 0", (torch.arange(22).double().view(11, 2)/10, torch.cat([classes, torch.tensor([0])]))
        yield "float32", (torch.arange(20.).view(10, 2)/10, classes)
        yield "many", (randn(60, 4).abs(), torch.arange(60) % 7 % 10 + torch.arange(60)//40*3)

    def solution(x, y):
        return torch.stack([x[y == c].mean() for c in range(10)])

    def second(x, y):
        sums = x.new_zeros(10).index_add(0, y, x.mean(1))
        return sums/torch.bincount(y, minlength=10).to(x.dtype)

    @wrong("took the mean image of each class: one number a class is asked for", "The mean goes over the images and over their pixels.")
    def images(x, y): return torch.stack([x[y == c].mean(0) for c in range(10)])

    @wrong("summed the pixels where the mean is asked for: a class with more images would seem to need more ink")
    def summed(x, y): return torch.stack([x[y == c].sum() for c in range(10)])

    @wrong("summed the pixels of an image, and took the mean over the images only")
    def per_image(x, y): return torch.stack([x[y == c].sum(1).mean() for c in range(10)])

    @wrong("divided by the number of all images, not by that of the class")
    def by_all(x, y): return torch.stack([x[y == c].mean(1).sum()/len(x) for c in range(10)])

    @wrong("took `y` for the place of the image: `x[c]` is image number c, whatever it shows", "`y == c` says which images are of class c.")
    def by_place(x, y): return torch.stack([x[c].mean() for c in range(10)])

    @wrong("took the largest pixel, not their mean")
    def largest(x, y): return torch.stack([x[y == c].max() for c in range(10)])

    @wrong("returned a list: a tensor of shape (10,) is asked for", "`torch.stack` makes one of ten.")
    def a_list(x, y): return [x[y == c].mean() for c in range(10)]

    @wrong("answered for nine classes: `range(9)` ends before 9")
    def nine(x, y): return torch.stack([x[y == c].mean() for c in range(9)])


class confusions(Exercise):
    title, kind = "Two of a kind", "implement"
    hints = ("Entry (i, j) counts the places where `y == i` and `preds == j`.",
             "`counts[y, preds] += 1` looks right, and counts each pair once only. `index_put_(..., accumulate=True)` counts all.",
             "Or number the pairs, `10*y + preds`, and let `bincount` count the 100 numbers.")
    then = "Draw the difference of the two means that are confused most often."
    gradients = False

    def cases(randn):
        t = torch.tensor
        yield "a 5 read as 3", (t([3]), t([5]))
        yield "one right, one wrong", (t([7, 1]), t([7, 7]))
        yield "the same mistake twice", (t([3, 3, 5]), t([5, 5, 5]))
        yield "the classes at both ends", (t([9, 0, 9, 9]), t([0, 9, 9, 9]))
        yield "no images", (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        yield "many", ((randn(500)*100).long().abs() % 10, torch.arange(500) % 10)

    def run(answer, preds, y):
        found = answer(preds, y)
        return found.long() if isinstance(found, torch.Tensor) and found.dtype != torch.bool and torch.equal(found, found.round()) else found

    def solution(preds, y):
        return torch.bincount(10*y + preds, minlength=100).view(10, 10)

    def second(preds, y):
        counts = torch.zeros(10, 10)
        for p, t in zip(preds.tolist(), y.tolist()): counts[t, p] += 1
        return counts

    @wrong("swapped the two: the row is the class of the image, the column what it was read as")
    def swapped(preds, y): return torch.bincount(10*preds + y, minlength=100).view(10, 10)

    @wrong("counted each pair once, however often it comes: `counts[y, preds] += 1` reads all entries before it writes them", "`index_put_` with `accumulate=True`, or `bincount`.")
    def once(preds, y):
        counts = torch.zeros(10, 10, dtype=torch.int64)
        counts[y, preds] += 1
        return counts

    @wrong("left out what was read rightly: the diagonal counts too")
    def no_diagonal(preds, y):
        keep = preds != y
        return torch.bincount(10*y[keep] + preds[keep], minlength=100).view(10, 10)

    @wrong("made the table only as large as the classes that occur: it has always ten rows and columns")
    def too_small(preds, y):
        n = int(max(preds.max(), y.max())) + 1 if len(y) else 0
        return torch.bincount(n*y + preds, minlength=n*n).view(n, n)

    @wrong("returned shares: how often is asked for, a count")
    def shares(preds, y): return torch.bincount(10*y + preds, minlength=100).view(10, 10)/max(len(y), 2)

    @wrong("counted a pair in both of its places: a 5 read as 3 is not a 3 read as 5")
    def both_ways(preds, y):
        counts = torch.bincount(10*y + preds, minlength=100).view(10, 10)
        return counts + counts.T

    @wrong("counted how often the class occurs, and how often the answer, each by itself: both must hold for the same image")
    def by_themselves(preds, y): return torch.stack([torch.stack([(y == i).sum()*(preds == j).sum() for j in range(10)]) for i in range(10)])


class k_nearest(Exercise):
    title, kind = "Nearest neighbours", "implement"
    hints = ("`torch.cdist(x, x_train)` has a row for each new image. Along which dimension are its neighbours?",
             "`topk(k, dim=1, largest=False).indices` says which training images are nearest; `y_train[indices]` are their labels.",
             "`mode(1).values` is the most common of each row.")
    then = "Try several `k` on 1,000 validation images. How long does an answer take?"
    gradients = False

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()[:, None]
        t = torch.tensor
        yield "the nearest of three", (d(0., 5., 9.), t([4, 6, 2]), d(1., 8.), 1)
        yield "the most common of three", (d(0., 5., 6., 7., 30.), t([9, 3, 3, 1, 8]), d(5.6), 3)
        yield "a new image for each", (d(0., 1., 2., 10., 11., 12.), t([1, 1, 8, 5, 5, 5]), d(1., 11., .4), 3)
        yield "all are neighbours", (d(0., 3., 7.), t([2, 2, 6]), d(8.), 3)
        yield "a training image itself, far from 0", (d(100., 200., 300.), t([7, 1, 0]), d(200.), 1)
        yield "two pixels", (torch.tensor([[0., 9.], [9., 0.], [5., 5.]]).double(), t([3, 4, 5]), torch.tensor([[8., 1.], [4., 4.]]).double(), 1)
        yield "nearest by distance, not by its pixels' sum", (torch.tensor([[4., 0.], [2.5, 2.5], [20., 1.]]).double(), t([3, 4, 5]), torch.tensor([[2., 2.]]).double(), 1)
        yield "float32", (torch.tensor([[0.], [5.]]), t([1, 2]), torch.tensor([[4.]]), 1)
        yield "many", (randn(40, 3), (torch.arange(40) % 4), randn(9, 3), 1)

    def solution(x_train, y_train, x, k):
        nearest = torch.cdist(x, x_train).topk(k, largest=False).indices
        return y_train[nearest].mode().values

    def second(x_train, y_train, x, k=3):
        found = []
        for image in x:
            order = (x_train - image).square().sum(1).argsort()[:k]
            found.append(torch.bincount(y_train[order]).argmax())
        return torch.stack(found)

    @wrong("took the farthest: `topk` finds the largest unless `largest=False`")
    def farthest(x_train, y_train, x, k=3): return y_train[torch.cdist(x, x_train).topk(k).indices].mode().values

    @wrong("returned the places of the neighbours: their labels are asked for", "`y_train[indices]`.")
    def places(x_train, y_train, x, k=3): return torch.cdist(x, x_train).topk(k, largest=False).indices.mode().values

    @wrong("took the mean of the labels: a 3 and a 9 do not make a 6")
    def mean(x_train, y_train, x, k=3): return y_train[torch.cdist(x, x_train).topk(k, largest=False).indices].double().mean(1).round().long()

    @wrong("took the nearest alone, whatever `k` is")
    def only_one(x_train, y_train, x, k=3): return y_train[torch.cdist(x, x_train).argmin(1)]

    @wrong("took three neighbours always, whatever `k` is")
    def always_three(x_train, y_train, x, k=3): return y_train[torch.cdist(x, x_train).topk(min(3, len(x_train)), largest=False).indices].mode().values

    @wrong("asked for the most common along the wrong dimension: each new image votes among its own neighbours", "`mode(1)`, if a row is a new image.")
    def over_images(x_train, y_train, x, k=3): return y_train[torch.cdist(x, x_train).topk(k, largest=False).indices].mode(0).values

    @wrong("returned the labels of all neighbours, and not the most common of them")
    def all_labels(x_train, y_train, x, k=3): return y_train[torch.cdist(x, x_train).topk(k, largest=False).indices]

    @wrong("took the largest product with the image for the nearest: a bright image has a large product with everything", "Use distances: `torch.cdist`.")
    def product(x_train, y_train, x, k=3): return y_train[(x @ x_train.T).topk(k).indices].mode().values

    @wrong("swapped the two: each training image looked for its nearest new ones")
    def swapped(x_train, y_train, x, k=3):
        nearest = torch.cdist(x_train, x).topk(min(k, len(x)), largest=False).indices
        return y_train[nearest % len(y_train)].mode().values


class Named:
    "Names any function in a pickle, as an attacker does."
    def __init__(self, function, *args): self.function, self.args = function, args
    def __reduce__(self): return self.function, self.args


RAN = []  # what a pickle called: nothing may ever stand here


def touch(word):
    "A harmless thing for a pickle to call."
    RAN.append(word)


class CarefulUnpickler(Exercise):
    title, kind = "A pickle reader that knows three names", "implement"
    hints = ("`find_class(module, name)` is asked for each function. What does the class above you do with a name that you allow?",
             "Compare the pair `(module, name)` with a set of three pairs; both must fit.",
             "Allowed: `return super().find_class(module, name)`. All else: `raise pickle.UnpicklingError(...)`.")
    then = "Read the list of what `torch.load` allows: `torch.serialization.get_safe_globals()` starts empty."
    gradients = False

    def cases(randn):
        old = lambda x: pickle.dumps(x, protocol=3).replace(b"numpy._core", b"numpy.core")
        yield "numbers, which name no function", (pickle.dumps((1, [2, 3])),)
        yield "an array", (old(np.arange(3)),)
        yield "pairs of arrays", (old([(np.eye(2, dtype=np.float32), np.arange(2))]),)
        yield "a path", (pickle.dumps(Path("a")),)
        yield "a function that is called", (pickle.dumps(Named(touch, "surprise")),)
        yield "eval", (pickle.dumps(Named(builtins.eval, "1 + 1")),)
        yield "numpy's own function that is not needed", (pickle.dumps(Named(np.zeros, 3), protocol=3).replace(b"numpy._core", b"numpy.core"),)
        yield "an allowed name in another module", (b"cexercises.lesson_01\ndtype\n.",)

    def run(answer, data):
        RAN.clear()
        try: value = answer(io.BytesIO(data), encoding="latin1").load()
        except (AttributeError, NameError, TypeError, NotImplementedError, RecursionError): raise
        except Exception: value = "refused"
        plain = lambda v: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else [plain(w) for w in v] if isinstance(v, (list, tuple)) else v if isinstance(v, (int, str)) else type(v).__name__
        return {"result": plain(value), "list of what the pickle called": list(RAN)}

    class solution(pickle.Unpickler):
        def find_class(self, module, name):
            allowed = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
            if (module, name) in allowed: return super().find_class(module, name)
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    class second(pickle.Unpickler):
        def find_class(self, module, name):
            known = {"numpy.core.multiarray _reconstruct": np.empty(0).__reduce__()[0], "numpy ndarray": np.ndarray, "numpy dtype": np.dtype}
            return known[f"{module} {name}"]

    @wrong("allowed everything: the pickle calls what it likes")
    class everything(pickle.Unpickler):
        def find_class(self, module, name): return super().find_class(module, name)

    @wrong("refused everything: arrays need three names")
    class nothing(pickle.Unpickler):
        def find_class(self, module, name): raise pickle.UnpicklingError("no")

    @wrong("allowed all of NumPy: three names are needed, and every other one is a way in")
    class all_of_numpy(pickle.Unpickler):
        def find_class(self, module, name):
            if module.split(".")[0] != "numpy": raise pickle.UnpicklingError("no")
            return super().find_class(module, name)

    @wrong("looked at the name alone: another module may have one of that name", "Compare the pair of module and name.")
    class name_only(pickle.Unpickler):
        def find_class(self, module, name):
            if name not in ("_reconstruct", "ndarray", "dtype"): raise pickle.UnpicklingError("no")
            return super().find_class(module, name)

    @wrong("refused what is known to be bad: such a list is never complete", "List what is allowed.")
    class forbidding(pickle.Unpickler):
        def find_class(self, module, name):
            if module in ("os", "posix", "subprocess", "builtins", "sys"): raise pickle.UnpicklingError("no")
            return super().find_class(module, name)

    @wrong("returned None for a name that is not allowed: an error must come, before anything is called")
    class quiet(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) in ALLOWED: return super().find_class(module, name)


dtype = np.dtype  # an allowed name in a module that is not
