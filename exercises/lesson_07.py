"Lesson 07, modules."
import torch

from fdl.nn import Flatten as FlattenOfFdl
from fdl.nn import Linear as LinearOfFdl
from fdl.nn import Module, ModuleList, Parameter, ReLU, Sequential

from .engine import Exercise, wrong


def filled(module, randn):
    "The module in float64, its parameters replaced by numbers of ours."
    module.double()
    with torch.no_grad():
        for p in module.parameters(): p.copy_(randn(*p.shape))
    return module


def facts(module, x):
    "What can be seen of a module: its output, its parameters and their gradients, and whether the input is as it was."
    before = x.clone()
    output = module(x)
    found = {"output": output}
    if not isinstance(output, torch.Tensor): return found
    if output.requires_grad: output.sum().backward()
    return found | {"input afterwards": x, "number of parameters found": sum(p.numel() for p in module.parameters()),
                    "parameters with a gradient": sum(p.grad is not None for p in module.parameters()), "input unchanged": torch.equal(x, before)}


class Shift(Module):
    "Adds a number of its own."
    def __init__(self, by): self.by = Parameter(torch.tensor(by).double())
    def extra_repr(self): return f"{self.by.item():g}"
    def forward(self, x): return x + self.by


class Residual(Exercise):
    title, kind, gradients = "A layer of your own", "implement", False
    hints = ("`__init__` keeps the block, `forward` computes. What kind of attribute does a module find?",
             "`self.block = block` is found. A list or a dictionary hides what is in it.",
             "`forward` returns `x + self.block(x)`.")
    then = "Stack ten of them: does the size of the output stay near that of the input?"

    def cases(randn):
        yield "a block that adds 1 to (1, 2)", (Shift(1.), torch.tensor([[1., 2.]]).double())
        yield "a block with negative outputs", (Shift(-9.), torch.tensor([[1., 2.]]).double())
        yield "a linear layer", (filled(LinearOfFdl(3, 3), randn), randn(4, 3))
        yield "a block of three", (filled(Sequential(LinearOfFdl(3, 5), ReLU(), LinearOfFdl(5, 3)), randn), randn(2, 3))
        yield "an empty batch", (filled(LinearOfFdl(2, 2), randn), torch.zeros(0, 2).double())

    def run(answer, block, x):
        return facts(answer(block), x) | {"two in a Sequential": sum(p.numel() for p in Sequential(answer(block), answer(block)).parameters())}

    class solution(Module):
        def __init__(self, block): self.block = block
        def forward(self, x): return x + self.block(x)

    class second(Module):
        def __init__(self, block): self.parts = ModuleList([block])
        def forward(self, x):
            for part in self.parts: x = torch.add(part(x), x)
            return x

    @wrong("returned only what the block gives: a residual block adds its input to that")
    class no_skip(Module):
        def __init__(self, block): self.block = block
        def forward(self, x): return self.block(x)

    @wrong("put the block where the module does not find it, in a list or a dictionary: its parameters are not trained", "Assign it: `self.block = block`.")
    class hidden(Module):
        def __init__(self, block): self.blocks = [block]
        def forward(self, x): return x + self.blocks[0](x)

    @wrong("changed the input itself, with `+=` or `add_`: whoever else needs `x` gets the wrong numbers", "`x + ...` makes a new tensor.")
    class changes_x(Module):
        def __init__(self, block): self.block = block
        def forward(self, x):
            x += self.block(x)
            return x

    @wrong("ran the block twice, one after the other")
    class twice(Module):
        def __init__(self, block): self.block = block
        def forward(self, x): return x + self.block(self.block(x))

    @wrong("put a ReLU after the sum: the exercise has none")
    class relu_after(Module):
        def __init__(self, block): self.block = block
        def forward(self, x): return (x + self.block(x)).relu()

    @wrong("took the difference, not the sum")
    class minus(Module):
        def __init__(self, block): self.block = block
        def forward(self, x): return self.block(x) - x

    @wrong("added the block's output to itself, not to the input")
    class doubled(Module):
        def __init__(self, block): self.block = block
        def forward(self, x): return 2 * self.block(x)

    @wrong("cut the block off from the gradient (`no_grad`, `detach` or `.data`): its parameters are found, but never move")
    class detached(Module):
        def __init__(self, block): self.block = block
        def forward(self, x): return x + self.block(x).detach()

    @wrong("forgot to return the sum in `forward`")
    class nothing(Module):
        def __init__(self, block): self.block = block
        def forward(self, x): x + self.block(x)


class WithBuffer(Module):
    "A linear layer, and a buffer of seven numbers."
    def __init__(self):
        self.layer = LinearOfFdl(2, 1)
        self.register_buffer("seen", torch.zeros(7))


class Shared(Module):
    "One layer under two names."
    def __init__(self): self.first = self.second = LinearOfFdl(2, 3)


def frozen(model, *names):
    "The model, with the parameters of these names frozen."
    for name, p in model.named_parameters(): p.requires_grad_(name not in names)
    return model


class count_parameters(Exercise):
    title, kind, gradients = "Count", "implement", False
    hints = ("`model.parameters()` gives each parameter once, a shared one too.", "A tensor `p` holds `p.numel()` numbers.",
             "With `trainable`, leave out those whose `requires_grad` is False.")
    then = "Where are most of the parameters of 784 to 50 to 10?"

    def cases(randn):
        yield "a layer of 2 inputs and 1 output", (LinearOfFdl(2, 1), False)
        yield "two layers, one inside a block", (Sequential(LinearOfFdl(2, 3), Sequential(ReLU(), LinearOfFdl(3, 1))), False)
        yield "a shared layer", (Shared(), False)
        yield "a frozen weight, all are counted", (frozen(LinearOfFdl(2, 1), "weight"), False)
        yield "a frozen weight, the trainable are counted", (frozen(LinearOfFdl(2, 1), "weight"), True)
        yield "a buffer beside the layer", (WithBuffer(), False)
        yield "no parameters", (ReLU(), False)
        yield "all of them trainable", (Sequential(LinearOfFdl(784, 50), ReLU(), LinearOfFdl(50, 10)), True)

    def run(answer, model, trainable):
        before = [p.requires_grad for p in model.parameters()]
        number = answer(model, trainable=trainable) if trainable else answer(model)
        if isinstance(number, torch.Tensor) and number.numel() == 1: number = number.item()
        return {"": number} if [p.requires_grad for p in model.parameters()] == before else {"": number, "requires_grad": "changed"}

    def solution(model, trainable=False):
        return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)

    def second(model, trainable=False):
        total = 0
        for _, p in model.named_parameters():
            if trainable and not p.requires_grad: continue
            total += len(p.flatten())
        return total

    @wrong("counted the tensors, not the numbers in them", "`p.numel()` is how many numbers `p` holds.")
    def tensors(model, trainable=False): return sum(1 for p in model.parameters() if p.requires_grad or not trainable)

    @wrong("counted a shared layer twice: it is trained once, and stored once")
    def shared_twice(model, trainable=False):
        return sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False) if p.requires_grad or not trainable)

    @wrong("took no notice of `trainable`")
    def ignores_trainable(model, trainable=False): return sum(p.numel() for p in model.parameters())

    @wrong("counted only what requires a gradient even when `trainable` is False")
    def always_trainable(model, trainable=False): return sum(p.numel() for p in model.parameters() if p.requires_grad)

    @wrong("turned the condition around: with `trainable=True` you count what is frozen")
    def inverted(model, trainable=False): return sum(p.numel() for p in model.parameters() if not trainable or not p.requires_grad)

    @wrong("counted the buffers too, as `state_dict` does: they are not parameters")
    def buffers_too(model, trainable=False):
        kept = {p.data_ptr(): p.numel() for p in [*model.parameters(), *model.buffers()] if p.requires_grad or not trainable or p in set(model.buffers())}
        return sum(kept.values())

    @wrong("looked only at the model's own attributes, not at the modules below it")
    def top_only(model, trainable=False): return sum(p.numel() for p in model.parameters(recurse=False) if p.requires_grad or not trainable)

    @wrong("counted the rows of each tensor, not its numbers", "`len(p)` and `p.shape[0]` are the rows; `p.numel()` is all.")
    def rows(model, trainable=False): return sum(p.shape[0] for p in model.parameters() if p.requires_grad or not trainable)

    @wrong("counted the weights and left out the biases")
    def weights_only(model, trainable=False): return sum(p.numel() for p in model.parameters() if p.dim() > 1 and (p.requires_grad or not trainable))


class Tuned(Module):
    "A network whose names begin alike: body, body2, head."
    def __init__(self):
        self.body, self.body2, self.head = LinearOfFdl(2, 2), LinearOfFdl(2, 2), LinearOfFdl(2, 1)


class freeze_all_but(Exercise):
    title, kind, gradients = "Fine-tuning", "implement", False
    hints = ("`model.named_parameters()` gives names and parameters; `p.requires_grad_(False)` freezes one.",
             "`name.startswith(prefixes)` takes a tuple of prefixes, and is true if one of them fits.",
             "Check first that every prefix fits some name, and raise a ValueError if one does not: a typing mistake would freeze everything.")
    then = "Which parameters does an optimizer move if it gets `model.parameters()` all the same?"

    def cases(randn):
        yield "one prefix", (Tuned(), ("head",))
        yield "two prefixes", (Tuned(), ("head", "body2"))
        yield "numbered layers", (Sequential(LinearOfFdl(2, 2), ReLU(), LinearOfFdl(2, 1)), ("2",))
        yield "a single parameter", (Tuned(), ("head.bias",))
        yield "the prefix stands inside other names", (Sequential(LinearOfFdl(2, 2), Sequential(LinearOfFdl(2, 2))), ("0",))
        yield "a prefix that fits nothing", (Tuned(), ("haed",))
        yield "one that fits, one that does not", (Tuned(), ("head", "haed"))

    def run(answer, model, prefixes):
        names = [name for name, _ in model.named_parameters()]
        wanted_error = any(not any(name.startswith(p) for name in names) for p in prefixes)
        try: kept = answer(model, *prefixes)
        except (ValueError, LookupError, AssertionError, RuntimeError):
            if not wanted_error: raise
            return {"a prefix that fits nothing": "an error"}
        if wanted_error: return {"a prefix that fits nothing": "no error"}
        if isinstance(kept, (set, tuple)) or hasattr(kept, "__next__"): kept = list(kept)
        return {"returned": sorted(kept) if isinstance(kept, list) else kept, "still trained": [name for name, p in model.named_parameters() if p.requires_grad]}

    def solution(model, *prefixes):
        names = [name for name, _ in model.named_parameters()]
        for prefix in prefixes:
            if not any(name.startswith(prefix) for name in names): raise ValueError(f"no parameter's name starts with {prefix!r}")
        for name, p in model.named_parameters(): p.requires_grad_(name.startswith(prefixes))
        return [name for name in names if name.startswith(prefixes)]

    def second(model, *prefixes):
        kept, unused = [], set(prefixes)
        for name, p in model.named_parameters():
            fitting = {prefix for prefix in prefixes if name[:len(prefix)] == prefix}
            p.requires_grad = bool(fitting)
            if fitting: kept.append(name)
            unused -= fitting
        if unused: raise KeyError(f"nothing starts with {unused}")
        return kept

    @wrong("let a prefix that fits nothing pass: one typing mistake, and the whole network is frozen", "Raise a ValueError.")
    def no_error(model, *prefixes):
        for name, p in model.named_parameters(): p.requires_grad_(name.startswith(prefixes))
        return [name for name, p in model.named_parameters() if p.requires_grad]

    @wrong("raised an error only if nothing fits at all: each prefix must fit something")
    def any_fits(model, *prefixes):
        kept = freeze_all_but.wrongs[0].answer(model, *prefixes)
        if not kept: raise ValueError("nothing fits")
        return kept

    @wrong("froze what should stay trained, and the other way round")
    def inverted(model, *prefixes):
        kept = freeze_all_but.solution(model, *prefixes)
        for p in model.parameters(): p.requires_grad_(not p.requires_grad)
        return kept

    @wrong("returned the names that are frozen; those that stay are asked for")
    def returns_frozen(model, *prefixes):
        kept = freeze_all_but.solution(model, *prefixes)
        return [name for name, _ in model.named_parameters() if name not in kept]

    @wrong("froze nothing: an attribute of another name, or of the module instead of the parameter, has no effect", "`p.requires_grad_(False)`, for a parameter `p`.")
    def nothing_frozen(model, *prefixes):
        kept = freeze_all_but.solution(model, *prefixes)
        for p in model.parameters(): p.requires_grad_(True)
        return kept

    @wrong("looked for the prefix anywhere in the name, with `in`: it must stand at the start")
    def anywhere(model, *prefixes):
        names = [name for name, _ in model.named_parameters()]
        for prefix in prefixes:
            if not any(prefix in name for name in names): raise ValueError
        kept = [name for name in names if any(prefix in name for prefix in prefixes)]
        for name, p in model.named_parameters(): p.requires_grad_(name in kept)
        return kept

    @wrong("used only the first prefix")
    def first_only(model, *prefixes): return freeze_all_but.solution(model, prefixes[0])

    @wrong("asked that a name starts with all the prefixes; one of them is enough")
    def all_of_them(model, *prefixes):
        freeze_all_but.solution(model, *prefixes)
        kept = [name for name, _ in model.named_parameters() if all(name.startswith(p) for p in prefixes)]
        for name, p in model.named_parameters(): p.requires_grad_(name in kept)
        return kept

    @wrong("returned nothing: the names that stay are asked for")
    def nothing(model, *prefixes): freeze_all_but.solution(model, *prefixes)

    @wrong("returned the parameters; their names are asked for")
    def tensors(model, *prefixes):
        freeze_all_but.solution(model, *prefixes)
        return (p for p in model.parameters() if p.requires_grad)


class Breaks(Module):
    "A module that raises an error when it is called."
    def forward(self, x): raise ArithmeticError("planted by the exercise")


def watched(model, x, hook_of):
    "Records by hooks, and takes them away whatever happens."
    handles = []
    try:
        for path, module in model.named_modules():
            if hook := hook_of(path, module): handles.append(module.register_forward_hook(hook))
        model(x)
    finally:
        for handle in handles: handle.remove()


class record_outputs(Exercise):
    title, kind, gradients = "Look inside", "extend", False
    hints = ("`model.named_modules()` gives every module with its path; the model itself has the empty path.",
             "A hook is called with (module, inputs, output). Make it in a function that takes `path`, or all hooks share the last one.",
             "Keep the handles, and remove them in a `finally`.")
    then = "Draw the spread of what each layer returns, for a network of ten layers."

    def cases(randn):
        yield "two modules", (filled(Sequential(LinearOfFdl(1, 1), ReLU()), randn), torch.tensor([[1.], [2.]]).double())
        yield "a module in a module", (filled(Sequential(LinearOfFdl(2, 2), Sequential(ReLU(), LinearOfFdl(2, 1))), randn), randn(3, 2))
        yield "an error on the way", (filled(Sequential(LinearOfFdl(2, 2), Breaks()), randn), randn(3, 2))
        yield "no module below", (ReLU(), torch.tensor([[-1., 1.]]).double())
        yield "three modules", (filled(Sequential(LinearOfFdl(2, 3), ReLU(), LinearOfFdl(3, 1)), randn), randn(4, 2))

    def run(answer, model, x):
        result = {}
        try: found = answer(model, x)
        except ArithmeticError: result["the planted error"] = "came through"
        else: result["recorded"] = dict(found) if isinstance(found, dict) else found
        result["hooks that stay"] = sum(len(m._forward_hooks) for m in model.modules())
        return result

    def solution(model, x):
        outputs, handles = {}, []
        def recorder(path):
            def hook(module, inputs, output): outputs[path] = output
            return hook
        try:
            for path, module in model.named_modules():
                if path: handles.append(module.register_forward_hook(recorder(path)))
            model(x)
        finally:
            for handle in handles: handle.remove()
        return outputs

    def second(model, x):
        from contextlib import ExitStack
        outputs = {}
        with ExitStack() as stack:
            for path, module in list(model.named_modules())[1:]:
                def hook(module, inputs, output, path=path): outputs[path] = output
                stack.callback(module.register_forward_hook(hook).remove)
            model.eval()(x)
        return outputs

    @wrong("left the hooks on the model: they go on recording, and keep memory")
    def hooks_left(model, x):
        outputs = {}
        for path, module in model.named_modules():
            if path: module.register_forward_hook(lambda m, i, o, path=path: outputs.update({path: o}))
        model(x)
        return outputs

    @wrong("left the hooks behind when an error comes in between", "Remove them in a `finally`.")
    def left_on_error(model, x):
        outputs, handles = {}, []
        for path, module in model.named_modules():
            if path: handles.append(module.register_forward_hook(lambda m, i, o, path=path: outputs.update({path: o})))
        model(x)
        for handle in handles: handle.remove()
        return outputs

    @wrong("let all hooks share one variable: when they run, `path` is the last one", "Bind it: `def hook(module, inputs, output, path=path)`.")
    def late_binding(model, x):
        outputs, last = {}, [path for path, _ in model.named_modules()][-1]
        watched(model, x, lambda path, m: path and (lambda m, i, o: outputs.update({last: o})))
        return outputs

    @wrong("recorded the model itself too, under the empty path")
    def itself_too(model, x):
        outputs = {}
        watched(model, x, lambda path, m: lambda m, i, o: outputs.update({path: o}))
        return outputs

    @wrong("recorded what goes in; what comes out is asked for", "The hook gets (module, inputs, output).")
    def inputs_(model, x):
        outputs = {}
        watched(model, x, lambda path, m: path and (lambda m, i, o: outputs.update({path: i[0]})))
        return outputs

    @wrong("looked only at the direct children; modules in modules count too")
    def children_only(model, x):
        outputs = {}
        watched(model, x, lambda path, m: path and "." not in path and (lambda m, i, o: outputs.update({path: o})))
        return outputs

    @wrong("used the kind of module as the key: two layers of a kind overwrite each other", "The path is what `named_modules` gives.")
    def by_kind(model, x):
        outputs = {}
        watched(model, x, lambda path, m: path and (lambda m, i, o: outputs.update({type(m).__name__: o})))
        return outputs

    @wrong("caught the error of the model and said nothing: whoever calls you must hear of it")
    def swallows(model, x):
        outputs = {}
        try: watched(model, x, lambda path, m: path and (lambda m, i, o: outputs.update({path: o})))
        except Exception: pass
        return outputs

    @wrong("never ran the model, so the hooks were never called")
    def not_run(model, x):
        for path, module in model.named_modules(): module.register_forward_hook(lambda m, i, o: None).remove()
        return {}


def layer_facts(answer, sizes, bias, x):
    "What can be seen of a linear layer of these sizes."
    layer = answer(*sizes) if bias else answer(*sizes, bias=False)
    named = dict(layer.named_parameters())
    shapes = {name: list(p.shape) for name, p in named.items()}
    found = {"shapes of the parameters": shapes}
    if shapes.get("weight") != list(sizes[::-1]): return found
    found["starts at zero"] = bool((named["weight"] == 0).all())
    found["largest weight at most 1/sqrt(inputs)"] = bool(named["weight"].abs().max() <= sizes[0]**-.5)
    if sizes[0]*sizes[1] > 100:
        found["all numbers differ at the start"] = all(len(p.unique()) > 10 for name, p in named.items() if name == "weight")
        found["the bias starts within 1/sqrt(inputs)"] = all(bool((p.abs() <= sizes[0]**-.5).all()) for name, p in named.items() if name == "bias")
    with torch.no_grad():
        for p in named.values(): p.copy_(torch.arange(1., p.numel() + 1).view(p.shape))
    found |= facts(layer.double(), x)
    return found | {"in the state_dict": sorted(layer.state_dict())}


class Linear(Exercise):
    title, kind, replaces, gradients = "Your own Linear", "rewrite", "fdl.nn.Linear", False
    hints = ("A Parameter that is assigned is found. The weight has the shape (out_features, in_features).",
             "Start within 1/sqrt(in_features), as torch does: `torch.empty(...).uniform_(-bound, bound)`.", "Without a bias, `self.bias = None`.")
    forbidden = ()

    def cases(randn):
        yield "2 inputs, 1 output", ((2, 1), True, torch.tensor([[1., 2.]]).double())
        yield "3 inputs, 2 outputs", ((3, 2), True, torch.tensor([[1., 0., 2.]]).double())
        yield "as many outputs as inputs", ((2, 2), True, torch.tensor([[1., 0.]]).double())
        yield "no bias", ((3, 2), False, torch.tensor([[1., 0., 2.]]).double())
        yield "two batch dimensions", ((3, 2), True, randn(2, 4, 3))
        yield "many", ((100, 20), True, randn(5, 100))

    def run(answer, sizes, bias, x): return layer_facts(answer, sizes, bias, x)

    class solution(Module):
        def __init__(self, in_features, out_features, bias=True):
            bound = in_features**-.5
            self.weight = Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
            self.bias = Parameter(torch.empty(out_features).uniform_(-bound, bound)) if bias else None
        def forward(self, input):
            output = input @ self.weight.T
            return output if self.bias is None else output + self.bias

    class second(Module):
        def __init__(self, in_features, out_features, bias=True):
            make = lambda *shape: Parameter((torch.rand(*shape)*2 - 1) / in_features**.5)
            self.weight, self.bias = make(out_features, in_features), make(out_features) if bias else None
        def forward(self, input): return torch.nn.functional.linear(input, self.weight, self.bias)

    @wrong("kept plain tensors: a module finds Parameters, and an optimizer moves nothing else")
    class plain(Module):
        def __init__(self, i, o, bias=True): self.weight, self.bias = torch.randn(o, i)*.1, torch.zeros(o)
        def forward(self, x): return x @ self.weight.T + self.bias

    @wrong("gave the weight the shape (inputs, outputs): torch's is (outputs, inputs)")
    class transposed(Module):
        def __init__(self, i, o, bias=True): self.weight, self.bias = Parameter((torch.rand(i, o) - .5)/i**.5), Parameter(torch.zeros(o)) if bias else None
        def forward(self, x): return x @ self.weight + (0 if self.bias is None else self.bias)

    @wrong("started with zeros: then all neurons stay alike")
    class zeros(Module):
        def __init__(self, i, o, bias=True): self.weight, self.bias = Parameter(torch.zeros(o, i)), Parameter(torch.zeros(o)) if bias else None
        def forward(self, x): return x @ self.weight.T + (0 if self.bias is None else self.bias)

    @wrong("took no notice of `bias=False`")
    class always_bias(Module):
        def __init__(self, i, o, bias=True): self.weight, self.bias = Parameter((torch.rand(o, i) - .5)/i**.5), Parameter(torch.zeros(o))
        def forward(self, x): return x @ self.weight.T + self.bias

    @wrong("made a bias and did not add it")
    class bias_unused(Module):
        def __init__(self, i, o, bias=True): self.weight, self.bias = Parameter((torch.rand(o, i) - .5)/i**.5), Parameter(torch.zeros(o)) if bias else None
        def forward(self, x): return x @ self.weight.T

    @wrong("started with weights of size 1: they must shrink with the number of inputs", "Divide by the root of `in_features`.")
    class too_large(Module):
        def __init__(self, i, o, bias=True): self.weight, self.bias = Parameter(torch.randn(o, i).sign()*(1 + torch.rand(o, i))), Parameter(torch.zeros(o)) if bias else None
        def forward(self, x): return x @ self.weight.T + (0 if self.bias is None else self.bias)

    @wrong("used `weight.data` or `detach` in `forward`: no gradient reaches the parameters")
    class detached(Module):
        def __init__(self, i, o, bias=True): self.weight, self.bias = Parameter((torch.rand(o, i) - .5)/i**.5), Parameter(torch.zeros(o)) if bias else None
        def forward(self, x): return x @ self.weight.data.T + (0 if self.bias is None else self.bias.data)


class Flatten(Exercise):
    title, kind, replaces = "Your own Flatten", "rewrite", "fdl.nn.Flatten"
    hints = ("The first dimension is the batch and stays. All others become one.", "`x.flatten(1)`, or `x.reshape(len(x), -1)`; what does the second do with an empty batch?")

    def cases(randn):
        yield "two images of 2 by 2", (torch.arange(8.).double().view(2, 2, 2),)
        yield "one image with 2 channels", (torch.arange(8.).double().view(1, 2, 2, 2),)
        yield "an empty batch", (torch.zeros(0, 2, 3).double(),)
        yield "flat already", (torch.tensor([[1., 2.], [3., 4.]]).double(),)
        yield "not contiguous", (torch.arange(8.).double().view(2, 2, 2).transpose(1, 2),)
        yield "float32", (torch.ones(1, 2, 2),)
        yield "many", (randn(3, 4, 5),)

    def run(answer, input): return answer()(input)

    class solution(Module):
        def forward(self, input): return input.flatten(1)

    class second(Module):
        def forward(self, input): return input.reshape(input.shape[0], input.shape[1:].numel())

    @wrong("flattened the batch too: the images must stay apart")
    class everything(Module):
        def forward(self, input): return input.flatten()

    @wrong("kept the last dimension, and joined the batch with the others")
    class last_stays(Module):
        def forward(self, input): return input.flatten(0, -2)

    @wrong("used `view`, which refuses a tensor that does not lie in memory in its order", "`reshape` and `flatten` copy it then.")
    class viewed(Module):
        def forward(self, input): return input.view(len(input), input.shape[1:].numel())

    @wrong("used -1 for the rest: with an empty batch, torch cannot tell what it is")
    class minus_one(Module):
        def forward(self, input): return input.reshape(len(input), -1)

    @wrong("turned the image around before flattening: the order of the pixels must stay")
    class turned(Module):
        def forward(self, input): return input.transpose(-1, -2).flatten(1)

    @wrong("joined only the first two dimensions after the batch")
    class two_only(Module):
        def forward(self, input): return input.flatten(1, 2) if input.dim() > 3 else input

    @wrong("cut it off from the gradient: the layers before would not be trained")
    class detached(Module):
        def forward(self, input): return input.detach().flatten(1)
