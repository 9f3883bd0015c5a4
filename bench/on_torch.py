"""The same operations in PyTorch, for python -m bench device."""

import statistics
import time


def attention(F, q, k, v):
    q, k, v = (a.transpose(1, 2) for a in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def linear_cross_entropy(F, x, w, labels):
    return F.cross_entropy(x @ w, labels)


def layer_norm(F, x, gamma, beta):
    return F.layer_norm(x, gamma.shape, gamma, beta)


def batch_norm(F, x, gamma, beta, c):
    """Images in the order n h w c, which PyTorch calls channels last."""
    return F.batch_norm(x.permute(0, 3, 1, 2), None, None, gamma, beta, training=True) * c.permute(0, 3, 1, 2)


def conv(F, x, w):
    return F.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), padding="same")


def lstm(F, x, wx, wh, b):
    import torch
    zero = x.new_zeros(1, x.shape[0], wh.shape[0])
    weights = [wx.T.contiguous(), wh.T.contiguous(), b, torch.zeros_like(b)]
    return torch._VF.lstm(x, (zero, zero), weights, True, 1, 0.0, True, False, True)[0]


def dropout(F, x):
    return F.dropout(x, 0.5)


FORMS = {"attention": attention, "linear_cross_entropy": linear_cross_entropy, "layer_norm": layer_norm,
         "softmax_cross_entropy": lambda F, z, labels: F.cross_entropy(z, labels), "batch_norm": batch_norm, "conv": conv, "lstm": lstm,
         "dropout": dropout}


def timed(f, arrays, dtype, seconds):
    """{"seconds" of value and gradients, "peak": bytes of its allocator, on a GPU} on the same kind of device as JAX's."""
    import jax
    import numpy as np
    import torch
    from torch.nn import functional as F
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("this PyTorch has no GPU support")

    def moved(a):
        if not np.issubdtype(np.asarray(a).dtype, np.integer):
            return torch.from_numpy(np.array(a, np.float32)).to(device, getattr(torch, dtype)).requires_grad_()
        return torch.from_numpy(np.array(a)).to(device).long()
    tensors = [moved(a) for a in arrays]
    real = [a for a in tensors if a.requires_grad]
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    cotangent = torch.ones_like(f(F, *tensors))

    def call():
        torch.autograd.grad(f(F, *tensors), real, cotangent)
        wait()
    call()
    taken, end = [], time.perf_counter() + seconds
    while len(taken) < 5 or (time.perf_counter() < end and len(taken) < 100):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return {"seconds": statistics.median(taken), "peak": torch.cuda.max_memory_allocated() if device == "cuda" else None}
