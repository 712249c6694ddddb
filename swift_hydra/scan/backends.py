"""Choice of the scan's backend: PyTorch, numba's kernels on a CPU, or mamba-ssm's on a GPU."""

import functools

import torch

from swift_hydra import compiled
from swift_hydra.settings import InputError


@functools.cache
def has_mamba_kernels():
    """Whether mamba-ssm's CUDA scan can run here, which takes its compiled extension and a GPU."""
    if not torch.cuda.is_available():
        return False
    try:
        # Fails if the compiled part is missing or was built for another version of torch.
        import selective_scan_cuda  # noqa: F401
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def official_scan(u, delta, A, B, C, D):
    """:func:`scan.torch_scan.selective_scan` computed by mamba-ssm's CUDA kernel.

    The G groups become groups of channels in one call, as the kernel accepts another B and C for
    each group of channels.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return grouped_scan(selective_scan_fn, u, delta, A, B, C, D)


def grouped_scan(scan_fn, u, delta, A, B, C, D):
    """Call a scan with mamba-ssm's signature on grouped inputs.

    Args:
        scan_fn: takes u, delta (B, channels, L), A (channels, N), B, C (B, groups, N, L), D.
        u: (G, B, L, D).
        delta: (G, B, L, D).
        A: (G, D, N).
        B: (G, B, L, N).
        C: (G, B, L, N).
        D: (G, D).

    Returns:
        (G, B, L, D).
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
    """The backend that runs on a device: "torch", "numba" or "official".

    On a GPU, "auto" and "official" run mamba-ssm's kernels if these are usable. On the CPU, where
    these never are, all settings but "torch" run numba's kernels if it is installed. In all other
    cases plain PyTorch runs.

    Args:
        name: "auto", "torch", "numba" or "official".
        device: a torch device or its name.

    Raises:
        RuntimeError: for an unknown name; and for ``official`` and ``numba`` if they cannot run,
            with the command that installs them.
    """
    if name not in ("auto", "torch", "numba", "official"):
        raise RuntimeError(
            f"mamba backend {name!r} is unknown: choose auto, torch, numba or official"
        )
    if name == "official" and not has_mamba_kernels():
        raise RuntimeError(
            "the mamba-ssm kernels cannot run here (they need an NVIDIA GPU and the compiled "
            'extension): pip install --no-build-isolation "mamba-ssm>=2.2.2,<2.3.2"'
        )
    if name == "numba" and not compiled.available():
        raise RuntimeError("the CPU kernels need numba: pip install numba")
    if name == "torch" or torch.device(device).type not in ("cpu", "cuda"):
        return "torch"
    if torch.device(device).type == "cuda":
        return "official" if name != "numba" and has_mamba_kernels() else "torch"
    return "numba" if compiled.available() else "torch"


def check_backend(name, device):
    """Refuse a setting whose kernels cannot run here, or not on the given torch device.

    Raises:
        InputError: naming the setting and the remedy.
    """
    try:
        choose_backend(name)
    except RuntimeError as error:
        raise InputError(str(error)) from None
    for_gpu = {"official": True, "numba": False}.get(name)
    if for_gpu is not None and for_gpu != (device.type == "cuda"):
        other = "cuda" if for_gpu else "cpu"
        raise InputError(
            f"mamba={name!r} does not run on {str(device)!r}, the device that was given or that "
            f"auto is here: give device {other}, or mamba auto"
        )


def loaded_backend(trained_with):
    """The backend setting of a trained network, which may be loaded on another machine.

    The backend it was trained with may be missing there, so it becomes "auto"; "torch" stays.
    """
    return "torch" if trained_with == "torch" else "auto"
