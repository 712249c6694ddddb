"""The two training loops: the Beta C-VAE (M2) and the detector (M3, M8, M9).

Both draw the classes in equal parts, so that a handful of anomalies is in every batch, and both are
fully determined by their seed: every stage has its own generators (see :func:`stage_seed`), nothing
reads or moves the global stream. Settings follow what was measured to suffice on small tables:
AdamW, one-cycle, a few hundred steps, mixup.
"""

import torch


def half_and_half(normal, anomaly, steps, size, generator):
    """Row numbers of all batches, as many anomalies as normals in each, drawn with replacement:
    (steps, size).
    """
    half = size // 2
    return torch.cat(
        [
            normal[torch.randint(len(normal), (steps, size - half), generator=generator)],
            anomaly[torch.randint(len(anomaly), (steps, half), generator=generator)],
        ],
        dim=1,
    )


def partners(fold, generator):
    """For every row of every batch another row of the same fold (itself when it is alone): (steps,
    B) like ``fold``.
    """
    key = fold.double() + 0.999 * torch.rand(fold.shape, generator=generator, dtype=torch.float64)
    order = torch.argsort(key, dim=1)  # rows of a fold are neighbours, in random order within it
    ordered = fold.gather(1, order)
    first = torch.searchsorted(ordered, ordered)  # where this row's fold begins
    following = torch.arange(1, fold.shape[1] + 1).clamp(max=fold.shape[1] - 1)
    same = ordered[:, following] == ordered
    same[:, -1] = False
    partner = torch.empty_like(order)
    return partner.scatter(1, order, order.gather(1, torch.where(same, following, first)))
