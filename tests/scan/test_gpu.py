"""What a GPU computes against what the CPU computes; skipped where there is none."""

import json

import numpy as np
import pytest
import torch
from helpers import made_table, run_script, write_rows
from sklearn.metrics import roc_auc_score

from swift_hydra.bench.speed_kernels import scan_inputs
from swift_hydra.model import MoEDetector
from swift_hydra.scan.backends import has_mamba_kernels, official_scan
from swift_hydra.scan.torch_scan import selective_scan
from swift_hydra.SwiftHydra import SwiftHydra

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
WAYS = {"torch": selective_scan, "official": official_scan}
LEARNING = {"n_episodes": 2, "mixture_steps": 150}


def _with_gradients(way, tensors):
    y = way(*tensors)
    weight = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.device)
    return [y, *torch.autograd.grad((y * weight).sum(), tensors)]


@pytest.fixture(params=WAYS)
def backend(request):
    if request.param == "official" and not has_mamba_kernels():
        pytest.skip("mamba-ssm's kernels are not installed: see docs/runs.md, Optional GPU")
    return request.param


@pytest.mark.parametrize("L", [1, 8, 100])
def test_a_scan_on_the_gpu_equals_the_cpus_with_gradients(backend, L):
    expected = _with_gradients(selective_scan, scan_inputs(5, L, 6, 4))
    found = _with_gradients(WAYS[backend], scan_inputs(5, L, 6, 4, device="cuda"))
    for ours, want in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), want, rtol=2e-4, atol=2e-4)


def test_groups_of_the_kernel_do_not_mix(backend):
    groups = [scan_inputs(3, 8, 6, 4, device="cuda") for _ in range(2)]
    groups[1] = [(2 * t).detach().requires_grad_() for t in groups[1]]
    both = [torch.cat(pair) for pair in zip(*groups, strict=True)]
    apart = torch.cat([WAYS[backend](*each) for each in groups])
    torch.testing.assert_close(WAYS[backend](*both), apart)


def test_a_mixture_scores_as_on_the_cpu(backend):
    torch.manual_seed(0)
    network = MoEDetector(12, 4).eval()
    X = torch.randn(500, 12)
    expected = network.score(X)
    network.to("cuda").backend = backend
    torch.testing.assert_close(network.score(X.to("cuda")).cpu(), expected, rtol=1e-4, atol=1e-5)


def test_a_detector_fitted_on_the_gpu_scores_alike_anywhere(backend, tmp_path):
    X, y = made_table(n=600, n_anomalies=60)
    model = SwiftHydra(random_state=0, device="cuda", mamba=backend, **LEARNING).fit(
        X[:400], y[:400]
    )
    assert model.device_.type == "cuda"
    scores = model.decision_function(X[400:])
    assert roc_auc_score(y[400:], scores) > 0.8
    alone = np.concatenate([model.decision_function(X[i : i + 1]) for i in range(400, 420)])
    np.testing.assert_allclose(alone, scores[:20], rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "model.pt")
    loaded = SwiftHydra.load(tmp_path / "model.pt")
    np.testing.assert_allclose(loaded.decision_function(X[400:]), scores, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_scores_on_the_gpu():
    X, y = made_table()
    first, second = (
        SwiftHydra(random_state=0, device="cuda", mamba="torch", **LEARNING)
        .fit(X, y)
        .decision_function(X)
        for _ in range(2)
    )
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)


def test_commands_on_the_gpu(backend, npz, tmp_path):
    flags = [npz, "--out", tmp_path / "run", "--device", "cuda"]
    pretrained = run_script("pretrain.py", *flags)
    assert pretrained.returncode == 0, pretrained.stderr
    done = run_script("SwiftHydra.py", *flags, "--mamba", backend, "--n-episodes", 2)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run" / "made" / "seen" / "seed0"
    report = json.loads((folder / "report.json").read_text())
    assert report["device"] == "cuda" and report["mamba_backend"] == backend
    rows = write_rows(tmp_path / "rows.csv", "x0,x1,x2,x3,x4,x5", lambda i: f"{i},1,2,3,4,5")
    asked = ["--checkpoint", folder / "checkpoint.pt", "--data", rows, "--out", tmp_path / "s.csv"]
    scored = run_script("SwiftHydra.py", "score", *asked)
    assert scored.returncode == 0, scored.stderr
