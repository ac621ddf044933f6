"""Deterministic pseudo-weights and inputs for parity fixtures (no reference code, numpy + optional torch).

``fill_(obj, seed)`` overwrites every tensor of a ``torch.nn.Module`` or of a state dict, in place, from the
tensor's *key name* alone, so that two implementations that expose the same keys/shapes get the same weights
whatever the order of construction.  For the key ``k``

    rng = numpy.random.RandomState((zlib.crc32(k.encode()) ^ seed) & 0xffffffff);  u = rng.uniform(-1, 1, shape)

(float64, C order) and, with ``shape'`` = shape without its trailing size-1 axes and ``leaf`` = last dotted part,
the FIRST rule that applies gives the value (cast to the tensor's dtype at the end):

  1. not floating point, or k matches KEEP (analytic buffers)   unchanged
  2. leaf == running_mean                                        0.1 * u
  3. leaf == running_var                                         1 + 0.5 * (u + 1) / 2
  4. leaf ends in _u (spectral norm, sibling <w>_orig)           u / |u|
  5. leaf ends in _v (spectral norm)                             W^T U / |W^T U|   (W = <w>_orig as matrix, U = <w>_u)
  6. 'bias' in leaf and len(shape') <= 1                         0.05 * u
  7. len(shape') <= 1, parent name has 'prelu'                   0.25 + 0.1 * u
  8. len(shape') <= 1 (norm-layer scale)                         1 + 0.1 * u
  9. otherwise                                                   u * sqrt(3 / fan_in) * gain,  fan_in = prod(shape[1:])

``W`` in rule 5 is the weight with its output axis first, flattened to 2-D (axis 0 for Linear/Conv, axis 1 for
ConvTranspose: recognised by len(U)).  PyTorch's eval-mode spectral norm divides by sigma = U . (W V).
"""

import re
import zlib

import numpy as np

KEEP = (
    r"(^|\.)pe$",
    r"(^|\.)position$",
    r"(^|\.)down\.weight$",
    r"num_batches_tracked$",
    r"(^|\.)priors?$",
    r"(^|\.)mean_tensor$",
    r"(^|\.)anchors?$",
)


def values(key, shape, seed, lookup=None, gain=1.0):
    """float64 array for a floating tensor called ``key`` (``lookup(key)`` -> sibling array, rules 4-5)."""
    rng = np.random.RandomState((zlib.crc32(key.encode()) ^ int(seed)) & 0xFFFFFFFF)
    u = rng.uniform(-1.0, 1.0, size=tuple(shape))
    parent, _, leaf = key.rpartition(".")
    dims = list(shape)
    while dims and dims[-1] == 1:
        dims.pop()
    if leaf == "running_mean":
        return 0.1 * u
    if leaf == "running_var":
        return 1.0 + 0.25 * (u + 1.0)
    if leaf.endswith("_u") and lookup is not None and lookup(key[:-2] + "_orig") is not None:
        return u / np.linalg.norm(u)
    if leaf.endswith("_v") and lookup is not None and lookup(key[:-2] + "_orig") is not None:
        w, uu = lookup(key[:-2] + "_orig"), lookup(key[:-2] + "_u")
        w = w if w.shape[0] == uu.size else np.swapaxes(w, 0, 1)
        v = w.reshape(uu.size, -1).T @ uu
        return v / np.linalg.norm(v)
    if len(dims) <= 1:
        if "bias" in leaf:
            return 0.05 * u
        return 0.25 + 0.1 * u if "prelu" in parent.rpartition(".")[2] else 1.0 + 0.1 * u
    return u * np.sqrt(3.0 / max(1, int(np.prod(shape[1:])))) * gain


def fill_(obj, seed, gain=1.0, keep=KEEP):
    """Fill a Module / state dict (torch tensors or float numpy arrays) in place; returns it."""
    state = obj.state_dict() if hasattr(obj, "state_dict") else obj
    cache = {}

    def lookup(key):
        if key not in state:
            return None
        if key not in cache:
            cache[key] = values(key, tuple(state[key].shape), seed, lookup, gain)
        return cache[key]

    for key, ten in state.items():
        floating = ten.is_floating_point() if hasattr(ten, "is_floating_point") else ten.dtype.kind == "f"
        if not floating or any(re.search(p, key) for p in keep):
            continue
        val = lookup(key)
        if hasattr(ten, "copy_"):
            import torch

            with torch.no_grad():
                ten.copy_(torch.from_numpy(np.ascontiguousarray(val)).to(ten.dtype))
        else:
            ten[...] = val
        if not key.endswith(("_u", "_orig")):
            cache.pop(key, None)
    return obj


def draw(name, shape, seed, lo=-1.0, hi=1.0):
    """Uniform float32 fixture input: RandomState(crc32('input:'+name) ^ seed).uniform(lo, hi, shape)."""
    rng = np.random.RandomState((zlib.crc32(("input:" + name).encode()) ^ int(seed)) & 0xFFFFFFFF)
    return rng.uniform(lo, hi, size=tuple(shape)).astype(np.float32)


def draw_image(name, shape, seed, lo=0.0, hi=1.0, waves=12, noise=0.08):
    """Smooth float32 image batch (..., C, H, W): a mean of random cosines plus uniform noise per channel."""
    rng = np.random.RandomState((zlib.crc32(("image:" + name).encode()) ^ int(seed)) & 0xFFFFFFFF)
    h, w = shape[-2:]
    planes = int(np.prod(shape[:-2]))
    yy, xx = np.meshgrid(np.arange(h) / h, np.arange(w) / w, indexing="ij")
    out = np.zeros((planes, h, w))
    for p in range(planes):
        f, ph, a = rng.uniform(-6, 6, (waves, 2)), rng.uniform(0, 2 * np.pi, waves), rng.uniform(0.2, 1.0, waves)
        for k in range(waves):
            out[p] += a[k] * np.cos(2 * np.pi * (f[k, 0] * yy + f[k, 1] * xx) + ph[k])
        out[p] = 0.5 + 0.5 * np.tanh(0.6 * out[p])
    out = np.clip(out + noise * rng.uniform(-1, 1, out.shape), 0, 1)
    return (lo + (hi - lo) * out).reshape(shape).astype(np.float32)
