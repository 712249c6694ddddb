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

import torch

from swift_hydra.scan import numba_kernels


def has_mamba_kernels():
    """True when mamba-ssm's CUDA scan can really run here, not merely be imported (needs its
    extension and a GPU).
    """
    if not torch.cuda.is_available():
        return False
    try:
        import selective_scan_cuda  # noqa: F401  the compiled part: what fails when it is missing or built for another torch
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def official_scan(u, delta, A, B, C, D):
    """The same contract as :func:`selective_scan.selective_scan`, computed by mamba-ssm's CUDA
    kernel.

    The groups become channel groups of one call: the kernel lets B and C differ between groups of
    channels.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return grouped_scan(selective_scan_fn, u, delta, A, B, C, D)


def grouped_scan(scan_fn, u, delta, A, B, C, D):
    """Call a scan with mamba-ssm's signature (u: (B, channels, L); B, C: (B, groups, N, L)) on
    grouped inputs.
    """
    G, rows, L, d = u.shape

    def channels(t):
        return t.permute(1, 0, 3, 2).reshape(rows, G * d, L).contiguous()  # (B, G * D, L)

    def states(t):
        return t.permute(1, 0, 3, 2).contiguous()  # (B, G, N, L)

    y = scan_fn(
        channels(u), channels(delta), A.reshape(G * d, -1), states(B), states(C), D.reshape(-1)
    )
    return y.reshape(rows, G, d, L).permute(1, 0, 3, 2)  # (G, B, L, D)


def choose_backend(name="auto", device="cpu"):
    """Resolve ``auto | torch | numba | official`` to what runs on a device: "torch", "numba" or
    "official".

    On a GPU: mamba-ssm's kernels for auto and official where they can run. On the CPU, where the
    official ones never can: numba_kernels.py's for all but torch where numba is installed. The pure
    PyTorch path otherwise.

    Raises:
        RuntimeError: for ``official`` and ``numba`` where they cannot run, with the lines that
        install them.
    """
    if name not in ("auto", "torch", "numba", "official"):
        raise RuntimeError(
            f"mamba backend {name!r} is unknown: choose auto, torch, numba or official"
        )
    if name == "official" and not has_mamba_kernels():
        raise RuntimeError(
            "the mamba-ssm kernels cannot run here (they need an NVIDIA GPU and the compiled extension): "
            "pip install -r requirements.txt && pip install --no-build-isolation -r requirements-gpu.txt"
        )
    if name == "numba" and not numba_kernels.available():
        raise RuntimeError("the CPU kernels need numba: pip install -r requirements-fast.txt")
    if name == "torch":
        return name
    if torch.device(device).type == "cuda":
        return "official" if name != "numba" and has_mamba_kernels() else "torch"
    return "numba" if numba_kernels.available() else "torch"
