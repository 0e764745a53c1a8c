"Lesson 14, convolutions."
from .engine import Exercise, wrong


class receptive_field(Exercise):
    title, kind, gradients = "The receptive field", "implement", False
    hints = ("How many input pixels lie between two neighbours of a layer's input? Before the first layer it is 1.",
             "A kernel of k reaches k - 1 neighbours further, and each is that many pixels away. Then the stride multiplies the distance.",
             "Or go backwards: `size` places of an output need `(size - 1)*stride + kernel` places of the input.")
    then = "How far does one of the 4 × 4 pixels of this lesson's network see?"

    def cases(randn):
        yield "no layer", ([],)
        yield "one layer", ([(3, 1)],)
        yield "one with a stride: nothing comes after it", ([(3, 2)],)
        yield "two layers", ([(3, 1), (3, 1)],)
        yield "a pooling, then a layer", ([(2, 2), (3, 1)],)
        yield "three with strides", ([(3, 2), (3, 2), (3, 2)],)
        yield "a stride, and two layers without", ([(5, 3), (3, 1), (2, 1)],)
        yield "1 × 1 kernels, and gaps", ([(1, 1), (1, 2), (3, 4), (5, 1)],)

    def solution(layers):
        size = apart = 1
        for kernel, stride in layers:
            size += (kernel - 1)*apart
            apart *= stride
        return size

    def second(layers):
        size = 1
        for kernel, stride in layers[::-1]: size = (size - 1)*stride + kernel
        return size

    @wrong("used the stride of the layer before only: the strides of all layers before multiply", "Keep a running product.")
    def previous_only(layers):
        size = before = 1
        for kernel, stride in layers:
            size += (kernel - 1)*before
            before = stride
        return size

    @wrong("left the strides out")
    def no_strides(layers): return 1 + sum(kernel - 1 for kernel, _ in layers)

    @wrong("counted a layer's own stride: it parts the outputs, and spreads only what comes after")
    def own_stride(layers):
        size = apart = 1
        for kernel, stride in layers:
            apart *= stride
            size += (kernel - 1)*apart
        return size

    @wrong("added the whole kernels: one of each kernel's places has been counted already", "`kernel - 1`.")
    def whole_kernel(layers):
        size, apart = 0, 1
        for kernel, stride in layers:
            size += kernel*apart
            apart *= stride
        return size

    @wrong("multiplied the kernels")
    def product(layers):
        size = 1
        for kernel, _ in layers: size *= kernel
        return size

    @wrong("added the strides: they multiply")
    def added(layers):
        size = apart = 1
        for kernel, stride in layers:
            size += (kernel - 1)*apart
            apart += stride - 1
        return size

    @wrong("took the last layer first")
    def backwards(layers): return receptive_field.solution(layers[::-1])

    @wrong("squared it: it is asked for across, not in pixels")
    def squared(layers): return receptive_field.solution(layers)**2
