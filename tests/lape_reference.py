"""LAPE written a second time, from its definition and in numpy alone: what ours is held against."""

from __future__ import annotations

import numpy as np


def lape_by_numpy(p: np.ndarray, *, top_rate: float, bar: float) -> np.ndarray:
    """E = −Σ q ln q with q = p / Σ p; ∞ where no p > τ; the top_rate of lowest E; of language k where p_k > τ.

    Args:
        p: [layer, neuron, lang], float32.
        top_rate: share of all neurons.
        bar: τ is the round(bar · size)-th smallest of all p.

    Returns:
        Which neuron is of which language, [layer, neuron, lang].
    """
    ordered = np.sort(p, axis=None)
    tau = ordered[round(bar * ordered.size) - 1]
    exact = p.astype(np.float64)
    entropy = np.zeros(p.shape[:2])
    total = exact.sum(axis=2)
    for k in range(p.shape[2]):
        q = np.divide(exact[:, :, k], total, out=np.zeros_like(total), where=total > 0)
        entropy -= q * np.log(q, out=np.zeros_like(q), where=q > 0)
    above = p > tau
    entropy[~above.any(axis=2)] = np.inf
    flat = np.round(entropy.ravel(), 12)  # what differs by rounding alone is equal, and its index decides
    order = np.argsort(flat, kind="stable")[: round(top_rate * flat.size)]
    taken = np.zeros(flat.size, dtype=bool)
    taken[order] = True
    return taken.reshape(entropy.shape)[:, :, None] & above
