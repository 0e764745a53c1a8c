"""Corners of the plotting functions, checked on axes and artists; no picture is compared."""
import math

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from fdl import plots
from fdl.plots import confusion_matrix, get_grid, plot_confusion, plot_history, plot_mistakes, show_image, show_images


@pytest.fixture(autouse=True)
def nothing_is_shown(monkeypatch):
    "No function calls `plt.show`; figures are closed afterwards."
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("plt.show() was called"))
    yield
    plt.close("all")


def visible(axes): return [ax for ax in axes[0].figure.axes if ax.axison and ax.get_visible()]
def clim(ax): return ax.images[0].get_clim()
def pixels(ax): return np.asarray(ax.images[0].get_array())


@pytest.mark.parametrize("n", range(1, 41))
def test_grids_show_every_image(n):
    images = torch.arange(n)[:, None, None].expand(n, 2, 2) / n
    axes = show_images(images, range(n))
    assert [int(ax.get_title()) for ax in axes] == list(range(n)) and visible(axes) == list(axes)
    for i, ax in enumerate(axes): assert np.allclose(pixels(ax), i/n)


@pytest.mark.parametrize("n", [1, 7, 12])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_any_number_of_columns_or_rows(n, k):
    axes = get_grid(n, ncols=k)
    assert axes[0].get_gridspec().get_geometry() == (-(-n // k), k) and len(visible(axes)) == n
    axes = get_grid(n, nrows=k)
    assert axes[0].get_gridspec().get_geometry() == (k, -(-n // k)) and len(visible(axes)) == n


@pytest.mark.parametrize("n, nrows, ncols", [(7, 2, 3), (2, 1, 1)])
def test_a_grid_too_small_is_refused(n, nrows, ncols):
    with pytest.raises(ValueError, match=f"nrows={nrows} times ncols={ncols} .*n={n}"): show_images(torch.zeros(n, 4, 4), nrows=nrows, ncols=ncols)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_dtypes_and_gradients(dtype):
    ax = show_image(torch.tensor([[0.25, 0.5]], dtype=dtype, requires_grad=True))
    assert pixels(ax).tolist() == [[0.25, 0.5]] and clim(ax) == (0, 1) and ax.images[0].get_cmap().name == "gray"


@pytest.mark.parametrize("image, limits", [
    (np.array([[3, 9]], np.uint8), (0, 255)), (torch.tensor([[3, 9]]), (0, 9)), (torch.tensor([[3, 900]]), (0, 900)),
    (torch.tensor([[True, False]]), (0, 1)), (np.array([[0.3, 0.31]]), (0, 1)), ([[0.0, 7.5]], (0, 7.5)),
    (torch.tensor([[-0.1, 0.05]]), (-0.1, 0.1)), (torch.tensor([[-1, 3]]), (-3, 3)), (torch.zeros(2, 2), (0, 1)),
    (torch.tensor([[math.nan, 0.5]]), (0, 1)), (torch.tensor([[math.inf, 0.5]]), (0, 1)), (torch.tensor([[-math.inf, -0.5]]), (-0.5, 0.5)),
    (torch.full((2, 2), math.nan), (0, 1))])
def test_the_scale_does_not_depend_on_contrast(image, limits):
    ax = show_image(image)
    assert np.allclose(clim(ax), limits) and ax.images[0].get_cmap().name == ("RdBu_r" if limits[0] < 0 else "gray")


def test_arrays_of_any_strides_and_the_input_untouched():
    base = np.arange(12.).reshape(3, 4) / 12
    assert (pixels(show_image(base[::-1, ::-1])) == base[::-1, ::-1]).all()
    kept = base.copy(); show_image(np.stack([base]*3)); assert (base == kept).all()
    assert (pixels(show_image(torch.from_numpy(base).T)) == base.T.astype(np.float32)).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channel_orders(channels):
    first = torch.rand(channels, 6, 7)
    a, b = (pixels(show_image(im)) for im in (first, first.permute(1, 2, 0)))
    assert np.allclose(a, b) and a.shape == ((6, 7) if channels == 1 else (6, 7, channels))
    assert np.allclose(pixels(show_image((first*255).byte())), a, atol=1/250) or channels == 1


def test_ambiguous_channels_are_first_as_in_torch():
    assert pixels(show_image(torch.rand(3, 9, 4))).shape == (9, 4, 3)
    assert pixels(show_image(torch.rand(4, 8, 3))).shape == (8, 3, 4)


def test_flat_images():
    flat = torch.rand(784)
    assert np.array_equal(pixels(show_image(flat)), flat.reshape(28, 28).numpy())
    assert np.array_equal(pixels(show_images(flat[None])[0]), flat.reshape(28, 28).numpy())


@pytest.mark.parametrize("shape", [(), (783,), (0,), (0, 5), (2, 3, 4, 5), (5, 5, 5), (2, 28, 28), (3, 0, 4)])
def test_other_shapes_are_refused(shape):
    for im in (torch.zeros(shape), np.zeros(shape)):
        with pytest.raises(ValueError, match=r"im must have shape .*not \(" + ", ".join(map(str, shape))): show_image(im)


def test_a_given_axes_is_used_and_returned():
    _, axes = plt.subplots(1, 2, squeeze=False)
    assert show_image(torch.rand(4, 4), axes[0, 1], "title") is axes[0, 1] and axes[0, 1].get_title() == "title" and not axes[0, 0].images
    assert plot_confusion([0, 1], [1, 1], ax=axes[0, 0]) is axes[0, 0] and len(plt.get_fignums()) == 1


def test_images_share_one_scale():
    axes = show_images([torch.full((2, 2), 0.1), torch.full((3, 3), -4.), np.full((2, 2), 2, np.float32)])
    assert {clim(ax) for ax in axes} == {(-4, 4)}
    assert {clim(ax) for ax in show_images(torch.rand(4, 3, 3) / 10)} == {(0, 1)}
    assert {clim(ax) for ax in show_images(torch.rand(2, 3, 3), vmin=0.5, vmax=0.7)} == {(0.5, 0.7)}


def test_images_from_a_generator_and_titles_from_labels():
    axes = show_images((torch.rand(4, 4) for _ in range(3)), torch.tensor([4, 0, 2]))
    assert [ax.get_title() for ax in axes] == ["4", "0", "2"]
    assert [ax.get_title() for ax in show_images(torch.rand(2, 4, 4), iter("ab"))] == ["a", "b"]


def test_history_of_every_kind():
    full = [dict(epoch=e, train_loss=1/(e + 1), valid_loss=2/(e + 1), valid_accuracy=e/5, seconds=1.0) for e in range(5)]
    for history, panels in ((full, ["loss", "accuracy"]), (full[:1], ["loss", "accuracy"]), ([{"train_loss": 1.0}], ["loss"]), (tuple(full), ["loss", "accuracy"]),
                            ([dict(train_loss=1.0, valid_error_rate=0.1, f1=0.5)], ["loss", "error_rate", "f1"]), ([{}, dict(valid_accuracy=0.5)], ["accuracy"]),
                            ([dict(epoch=3, train_loss=torch.tensor(1.5, requires_grad=True), valid_loss=math.nan)], ["loss"])):
        axes = plot_history(history)
        assert [ax.get_ylabel() for ax in axes] == panels and all(ax.get_xlabel() == "epoch" for ax in axes)
    axes = plot_history([*full[:2], dict(epoch=2, seconds=1), full[3]])
    assert [line.get_xdata().tolist() for line in axes[0].lines] == [[-0.5, 0.5, 2.5], [0, 1, 3]]  # a mean over an epoch stands in its middle
    assert plot_history([dict(train_loss=1.0), dict(valid_loss=1.0)])[0].lines[1].get_xdata().tolist() == [2]


def test_confusion_counts_against_a_loop():
    torch.manual_seed(0)
    targets, preds = torch.randint(6, (500,)), torch.randint(6, (500,))
    ax = plot_confusion(targets, preds)
    shown = np.zeros((6, 6), int)
    for text in ax.texts: shown[text.get_position()[::-1]] = int(text.get_text())
    wanted = np.zeros((6, 6), int)
    for t, p in zip(targets.tolist(), preds.tolist()): wanted[t, p] += 1
    assert (shown == wanted).all()
    off = np.ma.masked_invalid(ax.images[0].get_array())
    assert off.mask.diagonal().all() and off.mask.sum() == 6 and off.max() == (wanted - np.diag(wanted.diagonal())).max()


def test_confusion_takes_scores_names_and_unused_classes():
    scores = torch.tensor([[0., 2., 1.], [3., 0., 0.]], requires_grad=True)
    ax = plot_confusion(torch.tensor([1, 1]), scores)
    assert ax.get_title() == "50.0% of 2 right" and len(ax.get_xticks()) == 3
    assert [label.get_text() for label in plot_confusion([0], [0], classes=["T-shirt", "coat"]).get_yticklabels()] == ["T-shirt", "coat"]
    assert len(plot_confusion(np.array([0]), np.array([0])).texts) == 1


@pytest.mark.parametrize("targets, preds, classes, message", [
    ([0, 1], [0], None, r"not \(2,\) and \(1,\)"), ([], [], None, "n at least 1"), ([0, 5], [0, 1], "abc", "from 0 to 2, not 5"),
    ([0, -1], [0, 1], None, "not -1"), ([0, 0], [0, -1], "ab", "from 0 to 1, not -1"),
    ([0, 0], [0, 2], "ab", "from 0 to 1, not 2"), ([0, 1, 1], [0.2, 0.9, 0.7], None, "not 0.2; of probabilities"), ([0.5, 1], [0, 1], None, "integers from 0 to 1, not 0.5"),
    ([0, 1], torch.ones(2, 1), None, r"not \(2,\) and \(2, 1\)"), (1, 1, None, r"not \(\) and \(\)"), (torch.zeros(2, 2), torch.zeros(2), None, r"targets must have shape \(n,\)")])
def test_confusion_refuses(targets, preds, classes, message):
    with pytest.raises(ValueError, match=message): plot_confusion(targets, preds, classes)


def test_predictions_by_a_threshold_and_whole_floats_are_classes():
    for preds in (torch.tensor([0.2, 0.9, 0.7]) > 0.5, [0., 1., 1.]): assert confusion_matrix([0, 1, 1], preds).tolist() == [[1, 0], [0, 2]]


def test_a_history_is_rows():
    for history in ([], {"train_loss": [1, 2]}):
        with pytest.raises(ValueError, match="history must be rows"): plot_history(history)


def test_titles_are_as_many_as_images():
    for titles in (["a"], ["a", "b", "c"]):
        with pytest.raises(ValueError, match=f"each image needs a title, not {len(titles)} for 2"): show_images(torch.zeros(2, 4, 4), titles)


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="n=0.* above 0"): show_images([])


def test_mistakes_want_rows_that_belong_together():
    x, y, logits = torch.rand(3, 16), torch.tensor([0, 1, 1]), torch.eye(3)
    for args in ((x[:2], y, logits), (x, y[:2], logits), (x, y, logits[:2]), (x, y, logits[0])):
        with pytest.raises(ValueError, match=r"logits must be \(m, c\), .* not \("): plot_mistakes(*args)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_narrow_integers_do_not_overflow(kind):
    targets, preds = torch.tensor([20, 25, 100], dtype=kind), torch.tensor([20, 25, 3])
    counts = confusion_matrix(targets, preds)
    assert counts.shape == (101, 101) and counts[20, 20] == counts[25, 25] == counts[100, 3] == 1 and counts.sum() == 3
    assert plot_confusion(targets, preds).get_title() == "66.7% of 3 right"


def test_mistakes_are_the_surest_first():
    torch.manual_seed(0)
    x, y, logits = torch.rand(200, 16), torch.randint(4, (200,)), torch.randn(200, 4, requires_grad=True)
    probs, wrong = logits.softmax(1), logits.argmax(1) != y
    order = [i for i in probs.amax(1).argsort(descending=True).tolist() if wrong[i]][:9]
    axes = plot_mistakes(x, y, logits, n=9)
    assert len(axes) == 9
    for ax, i in zip(axes, order):
        assert np.array_equal(pixels(ax).ravel(), x[i].numpy())
        assert ax.get_title() == f"read {logits[i].argmax()}, is {y[i]}\n{probs[i].max():.1%}"
    assert len(plot_mistakes(x, y, logits, n=1000)) == wrong.sum() if wrong.sum() < 40 else True


def test_no_mistakes_draw_nothing():
    assert len(plot_mistakes(torch.rand(2, 16), torch.tensor([0, 1]), torch.eye(2))) == 0 and not plt.get_fignums()


def test_everything_can_be_drawn(recwarn):
    torch.manual_seed(0)
    show_images(torch.rand(7, 28, 28), [None, "two\nlines", *"abcde"])
    plot_history([dict(train_loss=1.0, valid_loss=2.0, valid_accuracy=0.5)] * 3)
    plot_confusion(torch.randint(10, (300,)), torch.randint(10, (300,)), classes=["longer"]*10)
    plot_mistakes(torch.rand(50, 3, 8, 8), torch.randint(4, (50,)), torch.randn(50, 4), 5, classes="abcd")
    for number in plt.get_fignums(): plt.figure(number).canvas.draw()
    assert not recwarn.list


def test_public_names():
    assert set(plots.__all__) == {"confusion_matrix", "show_image", "get_grid", "show_images", "plot_history", "plot_confusion", "plot_mistakes"}
