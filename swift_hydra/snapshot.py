"""The networks of Swift Hydra: Beta C-VAE (M2), Mamba and the mixture of Mamba experts (M3, M9),
latent policy (M6).

Papers: Do et al., "Swift Hydra: Self-Reinforcing Generative Framework for Anomaly Detection with
Multiple Mamba Models" (ICLR 2025); Gu and Dao, "Mamba" (2023); Higgins et al., "beta-VAE" (2017);
Shazeer et al., "Outrageously Large Neural Networks" (2017) for noisy top-k gating.

Glossary (symbol, meaning, shape)
    x, d      a standardised table row and its number of features        (B, d)
    y         label, 0 normal, 1 anomaly                                 (B,)
    z         latent of the Beta C-VAE                                   (B, d_latent)
    T         tokens of a row: groups of features, scanned by Mamba
    E, k      experts, experts that run for one row
    W(x)      the detector's probability of anomaly; networks return its logit
    G         groups evaluated together in one batched computation: the experts
    d_model, d_inner, d_state, dt_rank, d_conv    Mamba's own names, as in mamba_ssm.Mamba
    gates     router weights of a row, k of them non-zero, sum 1         (B, E)
    load      how many rows each expert was chosen for                   (E,)
"""

import numpy as np
import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def pack_network(network):
    """A network as plain values and tensors on the CPU."""
    return {
        "config": network.config,
        "state": {name: value.cpu() for name, value in network.state_dict().items()},
    }


def unpack_network(cls, packed):
    """Rebuild a network from :func:`pack_network`, in eval mode, on the CPU."""
    network = cls(**packed["config"])
    network.load_state_dict(
        {name: torch.as_tensor(value) for name, value in packed["state"].items()}
    )
    return network.eval()


def read_network(cls, packed):
    """:func:`unpack_network` for what a file holds: sizes, shapes and values are checked before
    memory is taken.

    Raises:
        ValueError: naming what does not fit.
    """
    config, state = (
        packed["config"],
        {name: torch.as_tensor(value) for name, value in packed["state"].items()},
    )
    most = sum(value.numel() for value in state.values())
    for name, size in config.items():
        if isinstance(size, int) and size > most:
            raise ValueError(f"{name}={size} with {most} stored numbers")
    with torch.device("meta"):  # shapes without memory
        wanted = {name: value.shape for name, value in cls(**config).state_dict().items()}
    for name in wanted.keys() | state.keys():
        found = state[name].shape if name in state else None
        if name not in wanted or found != wanted[name] or not torch.isfinite(state[name]).all():
            raise ValueError(
                f"{name} is unknown, missing, not finite or of another shape than {wanted.get(name)}"
            )
    return unpack_network(cls, packed)


def to_tensors(value):
    """Arrays to tensors inside nested dicts and lists; plain values stay."""
    if isinstance(value, dict):
        return {name: to_tensors(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_tensors(item) for item in value]
    return (
        torch.from_numpy(np.array(value)) if isinstance(value, (np.ndarray, np.generic)) else value
    )


def to_arrays(value):
    """The way back of :func:`to_tensors`."""
    if isinstance(value, dict):
        return {name: to_arrays(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_arrays(item) for item in value]
    return value.numpy() if isinstance(value, torch.Tensor) else value
