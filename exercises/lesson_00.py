"Lesson 00, the first tools."
import torch

from .engine import Exercise, wrong


class centre_columns(Exercise):
    title, kind = "Centre the columns", "implement"
    hints = ("The mean of each column is `x.mean(0)`. Which shape has it, and how does it broadcast against `x`?",
             "`x - x.mean(0)`: the one row of means is stretched over all rows.")
    then = "Centre the rows in the same way: `t - t.mean(1)` is refused, or wrong."
    most_calls = 12

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "two rows, three columns", (d([0., 1., 5.], [2., 5., 6.]),)
        yield "as many rows as columns", (d([1., 2.], [3., 8.]),)
        yield "one row", (d([3., 4.]),)
        yield "one column", (d([3.], [5.]),)
        yield "float32", (torch.tensor([[1., 2.], [3., 5.]]),)
        yield "many", (randn(20, 4),)

    def solution(x): return x - x.mean(0)

    def second(x): return x.sub(x.sum(dim=0, keepdim=True)/x.shape[0])

    @wrong("took the mean of each row: along dimension 0 the mean goes down a column")
    def rows(x): return x - x.mean(1, keepdim=True)

    @wrong("took one mean for the whole table: each column has its own")
    def all_of_it(x): return x - x.mean()

    @wrong("took the mean along dimension 1 without keeping it: broadcasting puts it along the columns, or refuses", "Shapes align at the right.")
    def not_kept(x): return x - x.mean(1)

    @wrong("returned the means themselves: they are to be taken from `x`")
    def means(x): return x.mean(0)

    @wrong("changed the table that came in: its owner may need the old numbers", "`x - ...` makes a new table, `x -= ...` does not.")
    def in_place(x):
        x -= x.mean(0)
        return x

    @wrong("took the median in the place of the mean")
    def median(x): return x - x.median(0).values

    @wrong("divided by the deviation too: the spread is to stay")
    def standardized(x): return (x - x.mean(0))/x.std(0)

    @wrong("subtracted the wrong way round")
    def reversed_sign(x): return x.mean(0) - x

    @wrong("added the mean where it is to be taken away")
    def added(x): return x + x.mean(0)


class checkerboard(Exercise):
    title, kind = "A checkerboard", "implement"
    hints = ("A column (8, 1) plus a row (8,) is a table (8, 8). What is in it?", "Row number plus column number: even on one colour, odd on the other. `% 2` tells.")
    then = '`board = checkerboard()`, then `draw_grid(plt.gca(), board, board, "")`.'
    gradients = False
    most_calls = 20

    def cases(randn):
        for part in ("the upper left corner", "all of it", "the last row and column", "the kinds of numbers in it"): yield part, (part,)

    def run(answer, part):
        board = answer()
        if not isinstance(board, torch.Tensor) or board.shape != (8, 8): return {"board": board}
        board = board.double()
        board = board if board[0, 0] == 0 else 1 - board   # either colour may come first
        if part == "the upper left corner": return {"corner": board[:2, :2]}
        if part == "the last row and column": return {"ends": torch.stack([board[-1], board[:, -1]])}
        return {"board": board} if part == "all of it" else {"list of the numbers in it": sorted(board.unique().tolist())}

    def solution():
        place = torch.arange(8)
        return (place[:, None] + place) % 2

    def second():
        row = 1. - torch.arange(8) % 2
        return (row.unsqueeze(1) != row).float()

    @wrong("made stripes: only the column number decides")
    def stripes(): return (torch.arange(8) % 2).expand(8, 8)

    @wrong("made stripes across: only the row number decides")
    def across(): return (torch.arange(8)[:, None] % 2).expand(8, 8)

    @wrong("multiplied the two: that is 1 only where both are odd", "Add them, and take the remainder of the sum.")
    def product(): return (torch.arange(8)[:, None] % 2)*(torch.arange(8) % 2)

    @wrong("forgot the remainder: the numbers climb to 14")
    def no_remainder(): return torch.arange(8)[:, None] + torch.arange(8)

    @wrong("took the remainder before adding: 1 + 1 is 2, and the board has zeros and ones only")
    def two_in_it(): return torch.arange(8)[:, None] % 2 + torch.arange(8) % 2

    @wrong("added two rows: one of them must be a column, of shape (8, 1)", "`torch.arange(8)[:, None]`.")
    def two_rows(): return (torch.arange(8) + torch.arange(8)) % 2

    @wrong("made one row of 64 squares: the board has eight rows of eight")
    def numbered(): return torch.arange(64) % 2


class broadcast_shape(Exercise):
    title, kind = "The broadcasting rule", "implement"
    hints = ("Align the shapes at the right: fill up the shorter one with ones at the left.",
             "Two sizes fit if they are equal or one of them is 1. Which one does the result have?",
             "It is not always the larger: 1 against 0 gives 0.")
    then = "Compare with `torch.broadcast_shapes(a, b)`."
    gradients = False
    forbidden = ("broadcast_shapes", "broadcast_tensors")

    def cases(randn):
        yield "the same shape", ((2,), (2,))
        yield "a row and a column", ((3, 1), (1, 4))
        yield "a column and a vector", ((3, 1), (4,))
        yield "a vector and a column", ((4,), (3, 1))
        yield "three and two", ((2, 3, 4), (3, 1))
        yield "a single number", ((), (5,))
        yield "two single numbers", ((), ())
        yield "nothing in it", ((1, 2), (0, 1))
        yield "a batch of size 1", ((5, 2), (1, 2))
        yield "what does not fit", ((3, 4), (3,))
        yield "multiples do not fit either", ((4,), (2,))
        yield "what fits at the left only", ((2, 3), (2, 1, 4))

    def run(answer, a, b):
        from torch import Size
        torch_s = torch.broadcast_shapes
        def refused(*shapes): raise RuntimeError("broadcast_shapes is what the exercise asks for")
        torch.broadcast_shapes = refused
        try: found = answer(a, b)
        except ValueError: return "a ValueError"
        finally: torch.broadcast_shapes = torch_s
        return tuple(found) if isinstance(found, (tuple, Size, list)) else found

    def solution(a, b):
        n = max(len(a), len(b))
        shape = []
        for i, j in zip((1,)*(n - len(a)) + a, (1,)*(n - len(b)) + b):
            if i != j and i != 1 and j != 1: raise ValueError(f"{a} and {b} do not fit")
            shape.append(j if i == 1 else i)
        return tuple(shape)

    def second(a, b):
        from itertools import zip_longest
        def one(i, j):
            if i == j or j == 1: return i
            if i == 1: return j
            raise ValueError("do not fit")
        return [one(i, j) for i, j in zip_longest(a[::-1], b[::-1], fillvalue=1)][::-1]

    def general(a, b, left=False, fits=lambda i, j: i == j or 1 in (i, j), size=lambda i, j: j if i == 1 else i):
        n = max(len(a), len(b))
        fill = lambda x: x + (1,)*(n - len(x)) if left else (1,)*(n - len(x)) + x
        if not all(fits(i, j) for i, j in zip(fill(a), fill(b))): raise ValueError
        return tuple(size(i, j) for i, j in zip(fill(a), fill(b)))

    @wrong("aligned the shapes at the left: broadcasting starts at the last sizes")
    def left(a, b): return broadcast_shape.general(a, b, left=True)

    @wrong("stopped where the shorter shape ends: the rest of the longer one stays as it is")
    def shorter(a, b):
        n = min(len(a), len(b))
        return broadcast_shape.general(a[len(a) - n:], b[len(b) - n:])

    @wrong("took the larger size: 1 against 0 gives 0, for nothing is repeated no times", "Take the size that is not 1.")
    def larger(a, b): return broadcast_shape.general(a, b, size=max)

    @wrong("did not refuse shapes that do not fit")
    def no_error(a, b): return broadcast_shape.general(a, b, fits=lambda i, j: True, size=lambda i, j: j if i == 1 else i if j == 1 else max(i, j))

    @wrong("let multiples fit: only size 1 is stretched, 2 against 4 is refused")
    def multiples(a, b): return broadcast_shape.general(a, b, fits=lambda i, j: i == j or 1 in (i, j) or i*j and max(i, j) % min(i, j) == 0, size=lambda i, j: j if i == 1 else i if j == 1 else max(i, j))

    @wrong("refused every two sizes that differ: 1 is stretched")
    def no_stretching(a, b): return broadcast_shape.general(a, b, fits=lambda i, j: i == j)

    @wrong("stretched only the first shape: either of the two may have size 1")
    def one_side(a, b): return broadcast_shape.general(a, b, fits=lambda i, j: i in (1, j))

    @wrong("returned the sizes in reverse: turn them round again at the end")
    def reverse(a, b): return broadcast_shape.general(a, b)[::-1]


class count_bytes(Exercise):
    title, kind = "How big is a batch?", "implement"
    hints = ("A function that calls itself: a tensor is counted, a dict, list or tuple asks for each of its parts, all else is 0.",
             "`x.numel()*x.element_size()` for a tensor; `x.values()` are the parts of a dict.", "`sum(count_bytes(part) for part in x)` for a list or tuple.")
    then = "A view counts its own numbers, though it shares its memory: look at `x.untyped_storage().nbytes()`."
    gradients = False

    def cases(randn):
        yield "one tensor", (torch.zeros(3),)
        yield "another dtype", (torch.zeros(2, 3, dtype=torch.int64),)
        yield "a list", ([torch.zeros(2), torch.zeros(1)],)
        yield "a tuple", ((torch.zeros(2), torch.zeros(3)),)
        yield "a dict", ({"x": torch.zeros(2), "y": torch.zeros(5)},)
        yield "a list in a dict in a list", ([{"x": [torch.zeros(2), (torch.zeros(1),)]}, torch.zeros(4)],)
        yield "words and numbers", (["abc", 7, None, torch.zeros(2)],)
        yield "a word", ("abc",)
        yield "one byte a number", (torch.zeros(5, dtype=torch.bool),)
        yield "no numbers", ([torch.zeros(0), [], {}],)
        yield "a single number", (torch.tensor(1.),)

    def solution(x):
        def size(part):
            if isinstance(part, torch.Tensor): return part.numel()*part.element_size()
            if isinstance(part, dict): part = list(part.values())
            return sum(map(size, part)) if isinstance(part, (list, tuple)) else 0
        return size(x)

    def second(x):
        total, left = 0, [x]
        while left:
            part = left.pop()
            if isinstance(part, torch.Tensor): total += part.nbytes
            elif isinstance(part, dict): left.extend(part.values())
            elif isinstance(part, (list, tuple)): left.extend(part)
        return total

    def general(x, of=lambda t: t.nbytes, kinds=(list, tuple), parts=lambda d: d.values(), deep=True):
        again = lambda y: count_bytes.general(y, of, kinds, parts, deep) if deep or isinstance(y, torch.Tensor) else 0
        if isinstance(x, torch.Tensor): return of(x)
        if isinstance(x, dict): return sum(map(again, parts(x)))
        return sum(map(again, x)) if isinstance(x, kinds) else 0

    @wrong("counted the numbers, not their bytes: a float32 has 4", "`element_size()`.")
    def numbers(x): return count_bytes.general(x, of=lambda t: t.numel())

    @wrong("took 4 bytes for every number: it hangs on the dtype")
    def four(x): return count_bytes.general(x, of=lambda t: 4*t.numel())

    @wrong("counted the rows: `len(t)` is the first size only")
    def rows(x): return count_bytes.general(x, of=lambda t: (len(t) if t.ndim else 1)*t.element_size())

    @wrong("looked only one level deep: a list may hold a list")
    def flat(x): return count_bytes.general(x, deep=False)

    @wrong("forgot the tuples")
    def no_tuples(x): return count_bytes.general(x, kinds=(list,))

    @wrong("went over the keys of a dict: `for part in x` gives those, its parts are `x.values()`")
    def keys(x): return count_bytes.general(x, parts=list)

    @wrong("counted one for each other thing: words and numbers count 0")
    def words(x):
        if isinstance(x, torch.Tensor): return x.nbytes
        if isinstance(x, dict): return sum(map(count_bytes.words.answer, x.values()))
        return sum(map(count_bytes.words.answer, x)) if isinstance(x, (list, tuple)) else 1


class sum_by_halves(Exercise):
    title, kind = "A better sum", "implement"
    hints = ("A function that calls itself. For how many numbers is there nothing to cut?", "One number is its own sum, `numbers[0]`; no numbers sum to 0.",
             "`half = len(numbers)//2`, then the sum of `numbers[:half]` plus that of `numbers[half:]`.")
    then = "How far is `sum_by_halves(numbers)` from 100,000,999? The few sums that hold the 1e8 round to a multiple of 8."
    forbidden = ("sum", "cumsum", "mean", "matmul", "dot")

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "two numbers", (d(1., 2.),)
        yield "one number", (d(5.),)
        yield "three numbers", (d(1., 2., 4.),)
        yield "seven numbers", (d(1., 2., 4., 8., 16., 32., 64.),)
        yield "one huge number, then a thousand ones", (torch.cat([torch.tensor([1e8]), torch.ones(1023)]),)
        yield "no numbers", (torch.zeros(0).double(),)
        yield "many", (randn(50),)

    def run(answer, numbers):
        total = answer(numbers)
        if len(numbers) < 1024: return total
        return {"type": str(getattr(total, "dtype", type(total))), "distance from 100,001,023": "at most 16" if abs(float(total) - 100_001_023) <= 16 else round(abs(float(total) - 100_001_023), -2)}

    def solution(numbers):
        def tree(part):
            if len(part) == 1: return part[0]
            half = len(part)//2
            return tree(part[:half]) + tree(part[half:])
        return tree(numbers) if len(numbers) else numbers.new_zeros(())

    def second(numbers):
        while len(numbers) > 1:
            odd = numbers[-1:] if len(numbers) % 2 else numbers[:0]
            pairs = numbers[:len(numbers) - len(odd)].view(-1, 2)
            numbers = torch.cat([pairs[:, 0] + pairs[:, 1], odd])
        return numbers[0] if len(numbers) else numbers.new_zeros(())

    @wrong("added one number after the other: a chain, in which each 1 is lost beside the 1e8")
    def chain(numbers):
        total = numbers.new_zeros(())
        for x in numbers: total = total + x
        return total

    @wrong("lost the odd number: with three, one half has two")
    def odd_lost(numbers):
        if len(numbers) < 2: return numbers[0] if len(numbers) else numbers.new_zeros(())
        half = len(numbers)//2
        return sum_by_halves.odd_lost.answer(numbers[:half]) + sum_by_halves.odd_lost.answer(numbers[half:2*half])

    @wrong("returned a number of shape (1,): a single number has the shape ()", "`numbers[0]` has it, `numbers[:1]` has not.")
    def one_row(numbers): return sum_by_halves.second(numbers).view(1)

    @wrong("summed only the first half")
    def first_half(numbers): return sum_by_halves.second(numbers[:len(numbers)//2])

    @wrong("did not think of no numbers at all: their sum is 0")
    def not_empty(numbers): return sum_by_halves.second(numbers) if len(numbers) else numbers[0]

    @wrong("handed the work to torch's own sum")
    def torchs(numbers): return numbers.sum()

    @wrong("went over to Python's numbers: a tensor is asked for")
    def python(numbers): return sum(numbers.tolist())

    @wrong("took the mean of the halves' sums: that divides by 2 at each cut")
    def halved(numbers):
        if len(numbers) < 2: return sum_by_halves.second(numbers)
        half = len(numbers)//2
        return (sum_by_halves.halved.answer(numbers[:half]) + sum_by_halves.halved.answer(numbers[half:]))/2
