"Lesson 11, validation."
from .engine import Exercise, wrong


class best_epoch(Exercise):
    title, kind = "Early stopping", "implement"
    hints = ("Find the row with the lowest `valid_loss` first. Of two that are equal, which came first?",
             "How many rows come after it? Compare that number with `patience`.")
    then = "Print it after each epoch of a run. Would stopping there have cost anything?"
    gradients = False

    def cases(randn):
        rows = lambda *losses: [{"epoch": i, "train_loss": 9. - i, "valid_loss": float(x)} for i, x in enumerate(losses, 1)]
        yield "one epoch", (rows(3), 3)
        yield "none after the best", (rows(3, 2, 1), 1)
        yield "as many as `patience`", (rows(3, 1, 2, 2, 2), 3)
        yield "one too few", (rows(3, 1, 2, 2, 2), 4)
        yield "the same lowest loss twice", (rows(3, 1, 2, 1, 4), 2)
        yield "worse in between, and then better", (rows(3, 4, 5, 1, 2), 2)
        yield "more than `patience`", (rows(1, 2, 3, 4, 5), 2)
        yield "epochs with other numbers", ([row | {"epoch": row["epoch"] + 9} for row in rows(2, 1, 3)], 1)
        yield "`patience` left out", (rows(1, 2, 3, 4), None)
        yield "left out, and one too few", (rows(1, 2, 3), None)

    def run(answer, history, patience):
        return answer(history) if patience is None else answer(history, patience)

    def solution(history, patience=3):
        losses = [row["valid_loss"] for row in history]
        best = losses.index(min(losses))
        return history[best]["epoch"], len(history) - 1 - best >= patience

    def second(history, patience=3):
        best = min(history, key=lambda row: row["valid_loss"])
        return best["epoch"], history[-1]["epoch"] - best["epoch"] >= patience

    @wrong("waited for one epoch more: `patience` epochs without a better one are enough", "`>=`, not `>`.")
    def one_more(history, patience=3): return best_epoch.solution(history, patience + 1)

    @wrong("counted the best epoch among those that were not better", "How many rows come after it?")
    def best_counted(history, patience=3): return best_epoch.solution(history, patience - 1)

    @wrong("looked at the training loss: it falls on when the validation loss rises")
    def training_loss(history, patience=3):
        return best_epoch.solution([row | {"valid_loss": row["train_loss"]} for row in history], patience)

    @wrong("took the last of two epochs with the same loss: the later one is not better", "`<`, not `<=`.")
    def last_of_ties(history, patience=3):
        best = min(reversed(history), key=lambda row: row["valid_loss"])
        return best["epoch"], history[-1]["epoch"] - best["epoch"] >= patience

    @wrong("returned the place in the list, and not the row's `epoch`")
    def place(history, patience=3):
        epoch, stop = best_epoch.solution(history, patience)
        return epoch - history[0]["epoch"], stop

    @wrong("took the highest loss: the best epoch has the lowest")
    def highest(history, patience=3):
        return best_epoch.solution([row | {"valid_loss": -row["valid_loss"]} for row in history], patience)

    @wrong("returned the last epoch: the best one is asked for")
    def last(history, patience=3): return history[-1]["epoch"], best_epoch.solution(history, patience)[1]
