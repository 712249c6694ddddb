"""The selective scan and the Mamba block against independent references."""

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch

from swift_hydra import compiled
from swift_hydra.model import Mamba, mamba_mixer
from swift_hydra.scan import backends, numba_kernels, numba_scan
from swift_hydra.scan.backends import (
    check_backend,
    choose_backend,
    grouped_scan,
    has_mamba_kernels,
)
from swift_hydra.scan.torch_scan import selective_scan
from swift_hydra.settings import InputError


def literal(u, delta, A, B, C, D):
    """h_t = exp(delta A) h + delta B u, y_t = C h_t + D u, one scalar loop over time, by automatic
    differentiation.
    """
    h, outputs = torch.zeros(*u.shape[:2], u.shape[-1], A.shape[-1], dtype=u.dtype), []
    for t in range(u.shape[2]):
        step = delta[:, :, t, :, None]  # (G, B, D, 1)
        h = torch.exp(step * A[:, None]) * h + step * B[:, :, t, None, :] * u[:, :, t, :, None]
        outputs.append((h * C[:, :, t, None, :]).sum(-1) + D[:, None] * u[:, :, t])
    return torch.stack(outputs, dim=2)


def arguments(G=2, rows=3, L=7, D=5, N=4, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    delta = torch.rand(G, rows, L, D, generator=g, dtype=dtype) + 0.01
    A = -torch.rand(G, D, N, generator=g, dtype=dtype) * 3 - 0.1
    tensors = (draw(G, rows, L, D), delta, A, draw(G, rows, L, N), draw(G, rows, L, N), draw(G, D))
    return [t.requires_grad_() for t in tensors]


@pytest.mark.parametrize("L", [1, 2, 7, 64])
def test_equals_the_literal_recurrence_with_gradients(L):
    tensors = arguments(L=L)
    ours, reference = selective_scan(*tensors), literal(*tensors)
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    grads = torch.autograd.grad((ours * weight).sum(), tensors)
    expected = torch.autograd.grad((reference * weight).sum(), tensors, allow_unused=True)
    for grad, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, want, rtol=1e-8, atol=1e-9)


def test_gradcheck():
    assert torch.autograd.gradcheck(selective_scan, arguments(G=1, rows=2, L=4, D=3, N=2))


def test_float32_is_close_and_deterministic():
    tensors = [t.detach().float() for t in arguments(L=32)]
    first, second = selective_scan(*tensors), selective_scan(*tensors)
    assert torch.equal(first, second)
    reference = literal(*[t.double() for t in tensors])
    torch.testing.assert_close(first.double(), reference, rtol=6e-4, atol=2e-3)


needs_numba = pytest.mark.skipif(
    not compiled.available(), reason="numba is not installed: pip install numba"
)


@needs_numba
@pytest.mark.parametrize("L", [1, 2, 7, 64])
@pytest.mark.parametrize(("D", "N"), [(5, 4), (64, 16)])
def test_the_compiled_scan_equals_the_reference_with_gradients(L, D, N):
    tensors = arguments(G=2, rows=3, L=L, D=D, N=N)
    single = [t.detach().float().requires_grad_() for t in tensors]
    ours, reference = numba_scan.selective_scan(*single), literal(*tensors)
    torch.testing.assert_close(ours.double(), reference, rtol=1e-4, atol=1e-4)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((ours * weight).sum(), single)
    expected = torch.autograd.grad((reference * weight).sum(), tensors, allow_unused=True)
    for grad, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(
            grad.double(), want, rtol=1e-3, atol=1e-4 * float(want.abs().max())
        )


def block_parameters(G=3, d_model=8, d_state=3, **settings):
    torch.manual_seed(0)
    blocks = [Mamba(d_model, d_state=d_state, **settings) for _ in range(G)]
    names = [name for name, _ in blocks[0].named_parameters()]
    return {
        name: torch.stack(
            [dict(b.named_parameters())[name].detach() for b in blocks]
        ).requires_grad_()
        for name in names
    }


@needs_numba
@pytest.mark.parametrize(
    "settings", [{}, {"d_model": 40, "d_state": 16}, {"d_conv": 2, "conv_bias": False}]
)
def test_the_compiled_block_equals_the_plain_one_with_gradients(settings):
    """dt_rank is 1, 3 and 1, so that every loop over it runs."""
    p = block_parameters(**settings)
    with torch.no_grad():
        p["dt_proj.bias"] += 2.0  # steps long enough that the state's past matters
        p["x_proj.weight"] *= 3.0
    x = torch.randn(3, 5, 9, p["in_proj.weight"].shape[-1], requires_grad=True)
    inputs, outputs = [x, *p.values()], {}
    for backend in ("torch", "numba"):
        y = mamba_mixer(p, x, backend)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        outputs[backend] = [y, *torch.autograd.grad((y * weight).sum(), inputs)]
    for ours, reference in zip(outputs["numba"], outputs["torch"], strict=True):
        torch.testing.assert_close(
            ours, reference, rtol=1e-4, atol=1e-5 * reference.detach().abs().max().item() + 1e-9
        )


@needs_numba
def test_compiled_functions_at_the_ends_of_their_range():
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([0.0, -1e-7, 1e-7, -1e30, 1e30])])
    exp, softplus, sigmoid = (
        torch.tensor([f(np.float32(v)) for v in x.numpy()])
        for f in (numba_kernels.exp, numba_kernels.softplus, numba_kernels.sigmoid)
    )
    inside = x.abs() < 87
    torch.testing.assert_close(exp[inside], x[inside].exp(), rtol=4e-7, atol=0.0)
    assert (exp[x <= -87] < 2e-38).all()
    assert (exp[x >= 87] > 6e37).all()
    x = x.double()
    torch.testing.assert_close(
        softplus.double(), torch.nn.functional.softplus(x, threshold=200), rtol=1e-6, atol=1e-37
    )
    torch.testing.assert_close(sigmoid.double(), torch.sigmoid(x), rtol=1e-6, atol=1e-37)
    assert all(
        np.isnan(f(np.float32("nan")))
        for f in (numba_kernels.exp, numba_kernels.softplus, numba_kernels.sigmoid)
    )


@needs_numba
def test_two_threads_compute_what_one_computes(threads):
    """On as many rows as make a second thread worth its start."""
    p, x, results = block_parameters(), torch.randn(3, 6000, 9, 8), []
    for n in (1, 2):
        threads(n)
        assert len(compiled.parts(18_000, x.numel() * 6)) == n
        y = mamba_mixer(p, x, "numba")
        results.append([y, *torch.autograd.grad(y.square().mean(), list(p.values()))])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5 * float(two.abs().max()))


def test_kernels_of_another_device_are_refused(monkeypatch):
    monkeypatch.setattr(backends, "has_mamba_kernels", lambda: True)
    check_backend("official", torch.device("cuda"))
    check_backend("numba", torch.device("cpu"))
    for name, device in (("official", "cpu"), ("numba", "cuda")):
        with pytest.raises(InputError, match=f"{name}.*{device}"):
            check_backend(name, torch.device(device))
    assert choose_backend("auto", "mps") == choose_backend("numba", "meta") == "torch"


def test_without_numba_the_plain_path_runs(monkeypatch):
    monkeypatch.setattr(compiled, "njit", None)
    assert choose_backend("auto") == "torch"
    with pytest.raises(RuntimeError, match="pip install numba"):
        choose_backend("numba")
    assert torch.isfinite(mamba_mixer(block_parameters(), torch.randn(3, 2, 5, 8))).all()


@pytest.mark.skipif(not compiled.available(), reason="numba is not installed")
def test_a_damaged_or_full_cache_of_kernels_is_passed_over(tmp_path, monkeypatch):
    caching = pytest.importorskip("numba.core.caching")
    monkeypatch.setattr(compiled.config, "CACHE_DIR", "")  # beside the code
    path = tmp_path / "kernel_of_a_test.py"
    path.write_text("def half(x):\n    return x / 2\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert compiled.compiled(module.half)(1.0) == 0.5
    files = list((tmp_path / "__pycache__").glob("*.nb?"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(b"")
    assert compiled.compiled(module.half)(3.0) == 1.5
    assert all(file.stat().st_size for file in files)  # the next process has it again

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.FunctionCache, "_save_overload", full)
    assert compiled.compiled(module.half)(np.float32(3.0)) == 1.5


def reference_of_mamba_ssm():
    """`selective_scan_ref` out of an installed mamba-ssm, without its compiled extension."""
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None:
        pytest.skip(
            "mamba-ssm is not installed: MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE "
            "pip install --no-deps --no-build-isolation 'mamba-ssm>=2.2.2,<2.3.2' installs its "
            "Python part"
        )
    path = f"{spec.submodule_search_locations[0]}/ops/selective_scan_interface.py"
    stubs = {
        "selective_scan_cuda": types.ModuleType("selective_scan_cuda"),
        "mamba_ssm.ops.triton.layer_norm": types.ModuleType("layer_norm"),
        "mamba_ssm.utils.torch": types.ModuleType("torch_utils"),
    }
    stubs["mamba_ssm.ops.triton.layer_norm"]._layer_norm_fwd = None
    stubs["mamba_ssm.utils.torch"].custom_bwd = stubs["mamba_ssm.utils.torch"].custom_fwd = (
        lambda f: f
    )
    for name in ("einops",):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name}, which mamba-ssm needs, is not installed")
    saved = {
        name: sys.modules.get(name)
        for name in [*stubs, "mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"]
    }
    sys.modules.update(stubs)
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.utils"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    try:
        loader = importlib.util.spec_from_file_location(
            "mamba_ssm.ops.selective_scan_interface", path
        )
        module = importlib.util.module_from_spec(loader)
        loader.loader.exec_module(module)
    finally:
        for name, value in saved.items():
            sys.modules.pop(name, None) if value is None else sys.modules.__setitem__(name, value)
        sys.modules.pop("mamba_ssm.utils", None)
    return module.selective_scan_ref


def test_equals_mamba_ssm_reference():
    tensors = [t.detach().float() for t in arguments(G=3, L=9)]
    expected = grouped_scan(
        reference_of_mamba_ssm(), *tensors
    )  # the layout that the CUDA kernel is called with
    torch.testing.assert_close(selective_scan(*tensors), expected, rtol=6e-4, atol=2e-3)


def test_state_dict_keys_are_mamba_ssms():
    keys = set(Mamba(16, d_state=4).state_dict())
    assert keys == {
        "A_log",
        "D",
        "in_proj.weight",
        "conv1d.weight",
        "conv1d.bias",
        "x_proj.weight",
        "dt_proj.weight",
        "dt_proj.bias",
        "out_proj.weight",
    }


def test_block_against_a_plain_implementation():
    """The whole block, written with torch's own Conv1d and one token at a time."""
    torch.manual_seed(0)
    block, x = Mamba(8, d_state=3, d_conv=4), torch.randn(2, 6, 8)
    u, gate = block.in_proj(x).chunk(2, -1)
    u = torch.nn.functional.silu(block.conv1d(u.transpose(1, 2))[:, :, :6].transpose(1, 2))
    dt, B, C = block.x_proj(u).split([block.dt_rank, 3, 3], -1)
    delta = torch.nn.functional.softplus(block.dt_proj(dt))
    y = literal(*[t.unsqueeze(0) for t in (u, delta, -block.A_log.exp(), B, C, block.D)])[0]
    expected = block.out_proj(y * torch.nn.functional.silu(gate))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    future = x.clone()
    future[:, 4:] += 1.0
    assert torch.equal(block(future)[:, :4], block(x)[:, :4])  # causal


def test_groups_do_not_mix():
    torch.manual_seed(0)
    blocks, x = [Mamba(8, d_state=3) for _ in range(3)], torch.randn(3, 2, 5, 8)
    stacked = {
        name: torch.stack([dict(b.named_parameters())[name] for b in blocks])
        for name, _ in blocks[0].named_parameters()
    }
    together = mamba_mixer(stacked, x)
    for g, block in enumerate(blocks):
        torch.testing.assert_close(together[g], block(x[g]), rtol=1e-4, atol=1e-5)


def test_rejects_a_wrong_width():
    with pytest.raises(ValueError, match="expected"):
        Mamba(8)(torch.randn(2, 3, 7))


@pytest.fixture
def asked_anew():
    """What kernels there are is asked for once in a process."""
    has_mamba_kernels.cache_clear()
    yield
    has_mamba_kernels.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_a_mamba_ssm_without_its_extension_falls_back(monkeypatch):
    """mamba_ssm that imports but has no compiled kernels must not be chosen, and asking for it must
    say what to do.
    """
    fake = types.ModuleType("mamba_ssm")
    monkeypatch.setitem(sys.modules, "mamba_ssm", fake)
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not has_mamba_kernels()
    assert choose_backend("auto", "cuda") == "torch"
    with pytest.raises(RuntimeError, match="no-build-isolation"):
        choose_backend("official")
