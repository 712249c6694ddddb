"""Convert networks and arrays to plain values and tensors, for files, and back.

Fitted objects have ``snapshot()``, which returns a nested dict of arrays, tensors and plain values,
and the classmethod ``from_snapshot``, which rebuilds an object with bit-identical scores.
"""

import copy
import dataclasses
import decimal
import enum
import math
import numbers

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

# Numbers that a constructor may create for each one that the finished network has.
MADE = 8


def pack_network(network):
    """A network as plain values and tensors on the CPU."""
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    return {"config": network.config, "state": weights}


class _Bounded(TorchFunctionMode):
    """Refuses to create tensors of more than ``left`` numbers in all, before memory is taken."""

    MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.randperm)
    MAKERS += (torch.arange, torch.full, torch.Tensor.repeat)

    def __init__(self, left):
        super().__init__()
        self.left = left

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in self.MAKERS:
            # An upper bound: arguments that are not sizes (a start, a value) only increase it.
            self.left -= math.prod(_numbers_of(part) for part in args)
            if self.left < 0:
                raise ValueError("sizes of more numbers than are stored")
        return function(*args, **(kwargs or {}))


def _numbers_of(part):
    if isinstance(part, torch.Tensor):
        return part.numel()
    return math.prod(part) if isinstance(part, (tuple, list)) else max(1, math.ceil(part))


def read_network(cls, packed):
    """Rebuild the network of :func:`pack_network`, in eval mode on the CPU.

    A file can hold anything, so sizes are checked before memory is taken, and shapes and values
    before they are used.

    Args:
        cls: the network's class; ``packed["config"]`` holds its constructor's arguments.
        packed: a result of :func:`pack_network`, perhaps read from a file.

    Raises:
        ValueError: names what does not fit.
    """
    config = packed["config"]
    state = {name: torch.as_tensor(value) for name, value in packed["state"].items()}
    most = sum(value.numel() for value in state.values())
    for name, size in config.items():
        if isinstance(size, int) and size > most:
            raise ValueError(f"{name}={size} with {most} stored numbers")
    # Not on the device "meta": it loads torch's compiler, which costs every process seconds.
    with torch.random.fork_rng(devices=[]), _Bounded(MADE * most):
        network = cls(**config)
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    for name in wanted.keys() | state.keys():
        found = state[name].shape if name in state else None
        if name not in wanted or found != wanted[name] or not torch.isfinite(state[name]).all():
            raise ValueError(
                f"{name} is unknown, missing, not finite or of another shape than "
                f"{wanted.get(name)}"
            )
    network.load_state_dict(state)
    if not is_finite(network):
        raise ValueError("weights that are finite in a wider type alone")
    return network.eval()


def is_finite(network):
    """Whether all weights and buffers of a network are finite in the types that it has them in."""
    return all(torch.isfinite(value).all() for value in network.state_dict().values())


def plain(value):
    """A value, or nested dicts and lists of values, as Python's own types, as files need them.

    Members of enumerations, other numbers (numpy's, decimals, fractions), and subclasses of texts
    and numbers become plain ones of the same value; arrays, tuples and sets become lists.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, dict):
        return {plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [plain(item) for item in items]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bool, type(None))):
        return value
    if isinstance(value, (numbers.Real, decimal.Decimal)):
        whole = isinstance(value, numbers.Integral)
        whole = whole or (isinstance(value, decimal.Decimal) and value == int(value))
        return int(value) if whole else float(value)
    return value


def in_own_numbers(config):
    """A copy of a dataclass of settings with Python's own numbers, as a file holds them.

    numpy's numbers calculate in their own few bits (8 in ``uint8``, 11 in ``float16``), so that a
    fitted object could differ from the loaded one. The original settings are not changed.
    """
    own = copy.copy(config)
    for field in dataclasses.fields(config):
        setattr(own, field.name, plain(getattr(config, field.name)))
    return own


def tensor_of(array):
    """A tensor that shares an array's memory, or a copy if that memory is read-only.

    joblib reads large arrays into read-only memory, and torch warns of each.
    """
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_tensors(value):
    """Nested dicts and lists with arrays turned into tensors; plain values stay."""
    if isinstance(value, dict):
        return {name: to_tensors(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_tensors(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return torch.from_numpy(np.array(value))
    return value


def to_arrays(value):
    """The inverse of :func:`to_tensors`."""
    if isinstance(value, dict):
        return {name: to_arrays(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_arrays(item) for item in value]
    return value.numpy() if isinstance(value, torch.Tensor) else value
