"""What the training loops share: optimisers, and trainings that can be resumed.

Creating the first optimiser object of torch.optim imports torch's compiler, which costs more than a
second in every process that trains. The classes here call the same kernels directly; results are
equal to the bit.
"""

import math
from functools import cache

import torch

from swift_hydra.journal import are_numbers
from swift_hydra.snapshot import is_finite, pack_network


def _cosine(start, end, share):
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


@cache
def one_cycle(lr, steps):
    """Learning rate and beta1 of every step, as :class:`torch.optim.lr_scheduler.OneCycleLR`."""
    first, last = lr / 25, lr / 25 / 1e4  # rates at both ends of the cycle
    turn, end = 0.3 * steps - 1, steps - 1  # steps of the largest rate, and of the last one
    cycle = []
    for step in range(steps):
        if step <= turn:
            share = step / turn
            cycle.append((_cosine(first, lr, share), _cosine(0.95, 0.85, share)))
        else:
            share = (step - turn) / (end - turn)
            cycle.append((_cosine(lr, last, share), _cosine(0.85, 0.95, share)))
    return cycle


class Adam:
    """Adam (Kingma and Ba, 2015) with the defaults of :class:`torch.optim.Adam`.

    Args:
        parameters: tensors; a step leaves those without a gradient unchanged.
        lr: learning rate.
    """

    BETA1 = 0.9
    BETA2 = 0.999
    EPSILON = 1e-8

    def __init__(self, parameters, lr):
        self.parameters = list(parameters)
        self.lr = lr
        self.moments = [[torch.zeros_like(p) for p in self.parameters] for _ in range(2)]
        self.done = [torch.zeros((), device=p.device) for p in self.parameters]

    def step(self, lr=None, beta1=BETA1):
        """One step down the gradients; ``lr`` replaces the optimiser's own rate."""
        learned = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        lists = (self.parameters, [p.grad for p in self.parameters], *self.moments, [], self.done)
        lists = [[part[i] for i in learned if part] for part in lists]
        with torch.no_grad():
            torch._foreach_add_(lists[-1], 1)
            # What torch.optim.Adam(fused=True) calls; sorting the tensors by device before it
            # takes as long as the step itself.
            torch._fused_adam_(
                *lists,
                amsgrad=False,
                beta1=beta1,
                beta2=self.BETA2,
                lr=self.lr if lr is None else lr,
                weight_decay=0.0,
                eps=self.EPSILON,
                maximize=False,
            )

    def snapshot(self):
        """The moments, and the number of steps of every parameter."""
        return {"moments": self.moments, "done": self.done}

    def go_on(self, snapshot):
        """Resume from what :meth:`snapshot` returned.

        Raises:
            ValueError: if it belongs to other parameters, or is not finite.
        """
        pairs = zip(
            [*self.moments, self.done], [*snapshot["moments"], snapshot["done"]], strict=True
        )
        for mine, its in pairs:
            for to, given in zip(mine, its, strict=True):
                if given.shape != to.shape:
                    shapes = tuple(given.shape), tuple(to.shape)
                    raise ValueError(f"moments of shape {shapes[0]}, not {shapes[1]}")
                to.copy_(given)
                if not to.isfinite().all():  # after the copy: a wider type's number may overflow
                    raise ValueError("moments that are not finite")


class Optimiser:
    """AdamW with a one-cycle learning rate and clipped gradients, on one flat tensor.

    For small networks, the time of a step depends on the number of tensors and Python calls, not on
    the number of elements. So parameters and gradients become views of two flat tensors, and a step
    is one call of torch's functional Adam, until :meth:`release` gives every parameter its own
    memory again.

    Args:
        network: the network to train.
        lr: largest learning rate of the cycle.
        weight_decay: weight decay of AdamW.
        steps: length of the cycle.
        free: parameters whose names contain one of these strings are not decayed.
    """

    CLIP = 5.0  # largest norm of the gradient

    def __init__(self, network, lr, weight_decay, steps, free=()):
        def is_free(name):
            return any(part in name for part in free)

        named = list(network.named_parameters())
        self.places = sorted(range(len(named)), key=lambda place: is_free(named[place][0]))
        named = [named[place] for place in self.places]
        self.parameters = [p for _, p in named]
        n_decayed = sum(p.numel() for name, p in named if not is_free(name))
        self.flat = torch.cat([p.detach().flatten() for p in self.parameters])
        self.grad = torch.zeros_like(self.flat)
        start = 0
        for p in self.parameters:
            part = slice(start, start + p.numel())
            p.data = self.flat[part].view_as(p)
            p.grad = self.grad[part].view_as(p)
            start = part.stop
        self.decayed = self.flat[:n_decayed]
        self.weight_decay = weight_decay
        self.flat.grad = self.grad
        self.adam = Adam([self.flat], lr)
        self.cycle = one_cycle(lr, steps)
        self.n_done = 0

    def step(self, loss, gradient=None):
        """One step down the gradient of a loss.

        ``gradient``: that of every parameter, in the network's order; None: autograd finds it.
        """
        if gradient is None:
            self.grad.zero_()
            loss.backward()
        else:
            torch.cat([gradient[place].flatten() for place in self.places], out=self.grad)
        self.grad.mul_((self.CLIP / (torch.linalg.vector_norm(self.grad) + 1e-6)).clamp(max=1.0))
        rate, beta1 = self.cycle[self.n_done]
        self.n_done += 1
        with torch.no_grad():
            # Not in Adam's step, since not all parameters are decayed.
            self.decayed.mul_(1 - rate * self.weight_decay)
        self.adam.step(rate, beta1)

    def snapshot(self):
        """The moments and the number of steps."""
        return self.adam.snapshot()

    def go_on(self, snapshot, n_done):
        """Resume a training after ``n_done`` steps.

        Raises:
            ValueError: if the snapshot does not fit, see :meth:`Adam.go_on`, or is of another step.
        """
        self.adam.go_on(snapshot)
        if any(done != n_done for done in self.adam.done):
            raise ValueError(f"moments of another step than {n_done}")
        self.n_done = n_done

    def release(self):
        """Give every parameter its own memory."""
        for p in self.parameters:
            p.data = p.data.clone()
            p.grad = None


class Training:
    """One training of a network, whose state a journal keeps.

    ``for step in training:`` yields the numbers of the steps that are left; the loop's body calls
    :meth:`learn` once. If the journal holds the finished stage, no step is left: network, random
    generators and history are restored, and the body never runs.

    Args:
        stage: its name in the journal.
        network: the network to train.
        optimiser: its :class:`Optimiser`.
        steps: total number of training steps.
        stream: the stage's :class:`training.seeds.Streams`.
        journal: a :class:`journal.Journal`.
    """

    def __init__(self, stage, network, optimiser, steps, stream, journal):
        self.stage = stage
        self.network = network
        self.optimiser = optimiser
        self.steps = steps
        self.stream = stream
        self.journal = journal
        self.history = []

    def __iter__(self):
        saved = self.journal.saved(self.stage)
        if saved is not None:
            with self.journal.taking_up():
                self._take_up(saved)
        for step in range(len(self.history), self.steps):
            yield step
            finished = step + 1 == self.steps
            if finished or self.journal.due():
                self.journal.keep(self.stage, self._content(finished), step + 1, self.steps)
        self.optimiser.release()
        self.journal.add_history(self.stage, self.history)

    def learn(self, loss, gradient=None, **parts):
        """One optimiser step; ``parts`` are the parts of the loss by their names in the log.

        ``gradient``: see :meth:`Optimiser.step`.

        Raises:
            FloatingPointError: if the loss is not finite, naming the step and the parts.
        """
        step = len(self.history)
        value = loss.item()
        if not math.isfinite(value):
            named = ", ".join(f"{name}={part:.4g}" for name, part in parts.items())
            raise FloatingPointError(f"{self.stage}: the loss is {value} at step {step} ({named})")
        self.history.append(parts)
        self.optimiser.step(loss, gradient)
        self.journal.step(self.stage, step + 1, self.steps, **parts)

    def _content(self, finished):
        return {
            "network": pack_network(self.network)["state"],
            "optimiser": None if finished else self.optimiser.snapshot(),
            "streams": [generator.get_state() for generator in self.stream],
            "history": self.history,
        }

    def _take_up(self, saved):
        history = saved["history"]
        finished = len(history) == self.steps
        if not (isinstance(history, list) and 0 < len(history) <= self.steps):
            raise ValueError(f"{self.stage}: the history has not 1 to {self.steps} steps")
        if not all(map(are_numbers, history)) or len(set(map(tuple, history))) > 1:
            raise ValueError(f"{self.stage}: the history holds something else than losses")
        self.network.load_state_dict(saved["network"])
        if not is_finite(self.network):
            raise ValueError(f"{self.stage}: the network's weights are not finite")
        for generator, state in zip(self.stream, saved["streams"], strict=True):
            generator.set_state(state)
        if not finished:
            self.optimiser.go_on(saved["optimiser"], len(history))
        self.history = history
