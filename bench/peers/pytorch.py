"""PyTorch on the same kind of device and with as many threads as XLA: eager, with channels last, and compiled.

A network of NETS is a module with the weights of the job. torch.compile is applied to the network, as in its documentation; a convnet is
compiled with channels last, the faster of the two layouts.
"""

import shutil
from itertools import chain

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bench.contender import Contender
from bench.results import cores


def given(layer, **values):
    """The layer in the dtype of these parameters, and with their values."""
    layer = layer.to(next(iter(values.values())).dtype)
    layer.load_state_dict(values, strict=False)
    return layer


def linear(w, b=None):
    return given(nn.Linear(*w.shape, bias=b is not None), weight=w.T, **({} if b is None else {"bias": b}))


def perceptron(workload, pairs):
    noise = [nn.Dropout(workload.dropout)] if workload.dropout else []
    *hidden, last = pairs
    return nn.Sequential(*chain.from_iterable((linear(w, b), nn.ReLU(), *noise) for w, b in hidden), linear(*last))


def convnet(workload, p):
    def conv(w, b):
        return given(nn.Conv2d(w.shape[2], w.shape[3], 3), weight=w.permute(3, 2, 0, 1), bias=b)
    side, b = (workload.sizes.side - 4) // 2, workload.sizes.filters[1]
    channels_first = p["w1"].reshape(side, side, b, -1).permute(2, 0, 1, 3).reshape(p["w1"].shape)
    return nn.Sequential(conv(p["k1"], p["bk1"]), nn.ReLU(), conv(p["k2"], p["bk2"]), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         linear(channels_first, p["bw1"]), nn.ReLU(), linear(p["w2"], p["bw2"]))


class LSTM(nn.Module):
    def __init__(self, workload, p):
        super().__init__()
        # PyTorch has two biases, whose sum matters: training both would double the learning rate of their sum.
        self.lstm = given(nn.LSTM(p["wx"].shape[0], p["wh"].shape[0], batch_first=True), weight_ih_l0=p["wx"].T, weight_hh_l0=p["wh"].T,
                          bias_ih_l0=p["b"], bias_hh_l0=torch.zeros_like(p["b"]))
        self.lstm.bias_hh_l0.requires_grad_(False)
        self.linear = linear(p["w_out"], p["b_out"])

    def forward(self, x):
        return self.linear(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self, workload, p):
        super().__init__()
        d, self.heads, _ = p["wq"].shape
        self.words = given(nn.Embedding(*p["words"].shape), weight=p["words"])
        self.places = nn.Parameter(p["places"].clone())
        self.norms = nn.ModuleList(given(nn.LayerNorm(d), weight=p[f"gamma{i}"], bias=p[f"beta{i}"]) for i in range(3))
        self.qkv = linear(torch.cat([p[name].reshape(d, -1) for name in ("wq", "wk", "wv")], 1))
        self.project = linear(p["wo"].reshape(-1, d))
        self.mlp = nn.Sequential(linear(p["w1"], p["b1"]), nn.GELU(approximate="tanh"), linear(p["w2"], p["b2"]))
        self.out = linear(p["out"])

    def forward(self, x):
        h = self.words(x) + self.places
        n, t, d = h.shape
        q, k, v = (part.view(n, t, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norms[0](h)).split(d, 2))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.project(a.transpose(1, 2).reshape(n, t, d))
        h = h + self.mlp(self.norms[1](h))
        return self.out(self.norms[2](h)).flatten(0, 1)


NETS = {"perceptron": perceptron, "convnet": convnet, "recurrent": LSTM, "transformer": Transformer}


def unavailable(channels_last=False, compiled=False):
    """Why this form cannot be timed here; "" if it can."""
    needed = compiled and jax.default_backend() == "cpu" and not (shutil.which("g++") or shutil.which("clang++"))
    return "torch.compile needs a C++ compiler, and there is none" if needed else ""


def step(job, channels_last=False, compiled=False):
    w, device = job.workload, "cpu" if jax.default_backend() == "cpu" else "cuda"
    channels_last |= compiled and w.kind == "convnet"
    torch.set_num_threads(cores())

    def moved(a):
        a = torch.from_numpy(np.array(a)).to(device)
        return a if a.is_floating_point() else a.long()

    def images(x):
        x = x.permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last) if channels_last else x.contiguous()
    arranged = images if w.kind == "convnet" else lambda x: x
    batches = [(arranged(moved(x)), moved(y).flatten()) for x, y in job.batches]

    def fresh():
        net = NETS[w.kind](w, jax.tree.map(moved, job.weights)).to(device)
        net = net.to(memory_format=torch.channels_last) if channels_last else net
        kind = torch.optim.Adam if w.optimizer == "adam" else torch.optim.SGD
        optimizer = kind(net.parameters(), lr=w.rate, **({"momentum": 0.9} if w.optimizer == "momentum" else {}))
        return torch.compile(net) if compiled else net, optimizer

    def advance(state, i):
        net, optimizer = state
        x, y = batches[i % len(batches)]
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=w.compute == "bfloat16"):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return state, loss.detach()
    return Contender(fresh, advance, wait=lambda reached: float(reached[1]))
