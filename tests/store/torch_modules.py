"""PyTorch modules and the fnnet networks that compute the same.

    python tests/store/torch_modules.py         after a case was added or changed, with torch installed

writes torch_modules.npz: for each module an input, the state dict and the output, with which the ordinary tests compare.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fnnet import layers, ops

RECORDED = Path(__file__).with_suffix(".npz")
GELU = layers.Function(ops.gelu, approximate=False)


class Case(NamedTuple):
    net: object                         # here
    x: np.ndarray                       # as the fnnet network takes it
    make: object                        # make(torch.nn) -> the PyTorch module
    images: bool = False                # x and y are [n ... c] here and [n c ...] in PyTorch
    mapping: dict | None = None


def drawn(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def residual(nn):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
            self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
            self.downsample = nn.Sequential(nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6))

        def forward(self, x):
            body = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (body + self.downsample(x)).relu()
    return Block()


def conv(features, kernel=3, **settings):
    return layers.Conv(features, kernel=kernel, **{"padding": "VALID"} | settings)


def recurrent(name, *args, **settings):
    def make(nn):
        class First(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = getattr(nn, name)(*args, batch_first=True, **settings)

            def forward(self, x):
                return self.rnn(x)[0]
        return First()
    return make


def attention(**settings):
    def make(nn):
        class Attend(nn.Module):
            def __init__(self):
                super().__init__()
                self.attn = nn.MultiheadAttention(8, 2, batch_first=True, **settings)

            def forward(self, x):
                return self.attn(x, x, x)[0]
        return Attend()
    return make


def bilinear(nn):
    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.product = nn.Bilinear(4, 4, 3)

        def forward(self, x):
            return self.product(x, x)
    return Same()


def twice(x):
    return x, x


ENCODER = {"0.0.0": "norm1", "0.0.1": "self_attn", "1.0.0": "norm2", "1.0.1": "linear1", "1.0.3": "linear2"}
S, P = layers.Serial, layers
CASES = {
    "dense": Case(S(P.Dense(5), ops.tanh, P.Dense(3, bias=False)), drawn(2, 4),
                  lambda nn: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))),
    "residual block": Case(S(P.Residual(S(conv(6, strides=2, padding=1, bias=False), P.BatchNorm(), ops.relu,
                                          conv(6, padding=1, bias=False), P.BatchNorm()),
                                        shortcut=S(conv(6, 1, strides=2, bias=False), P.BatchNorm())), ops.relu),
                           drawn(2, 7, 7, 4), residual, images=True),
    "convolutions": Case(S(conv(8, (3, 2), groups=2), P.PReLU(), P.DepthwiseConv(3, multiplier=2, padding="VALID"), P.GroupNorm(4),
                           conv(4), P.InstanceNorm(), P.PReLU(shared=True)), drawn(2, 9, 9, 4),
                         lambda nn: nn.Sequential(nn.Conv2d(4, 8, (3, 2), groups=2), nn.PReLU(8), nn.Conv2d(8, 16, 3, groups=8),
                                                  nn.GroupNorm(4, 16), nn.Conv2d(16, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.PReLU()),
                         images=True),
    "transposed": Case(S(P.ConvTranspose(6, padding="VALID"), P.ConvTranspose(4, kernel=2, strides=1, groups=2, padding="VALID")),
                       drawn(2, 4, 4, 3), lambda nn: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, stride=2),
                                                                   nn.ConvTranspose2d(6, 4, 2, groups=2)), images=True),
    "flattened images": Case(S(conv(3), P.MaxPool(2), P.Flatten(), P.BatchNorm(), P.PReLU(), P.Dense(5), P.Dense(2)), drawn(2, 8, 10, 2),
                             lambda nn: nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.Flatten(), nn.BatchNorm1d(36), nn.PReLU(36),
                                                      nn.Linear(36, 5), nn.Linear(5, 2)), images=True),
    "flattened signals": Case(S(S(conv(3), ops.relu), S(P.Flatten(), P.Dense(2))), drawn(2, 8, 4),
                              lambda nn: nn.Sequential(nn.Conv1d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)), images=True),
    "flattened sequences": Case(S(P.LSTM(3), P.Flatten(), P.Dense(2)), drawn(2, 5, 4),
                                lambda nn: nn.Sequential(recurrent("LSTM", 4, 3)(nn), nn.Flatten(), nn.Linear(15, 2))),
    "lstm": Case(S(P.Bidirectional(P.LSTM(3)), P.Bidirectional(P.LSTM(3))), drawn(2, 5, 4),
                 recurrent("LSTM", 4, 3, num_layers=2, bidirectional=True)),
    "gru": Case(S(P.GRU(3), P.GRU(3)), drawn(2, 5, 4), recurrent("GRU", 4, 3, num_layers=2)),
    "rnn": Case(P.RNN(3, activation="relu"), drawn(2, 5, 4), recurrent("RNN", 4, 3, nonlinearity="relu")),
    "attention": Case(P.MultiHeadAttention(2), drawn(2, 5, 8), attention()),
    "attention without biases": Case(P.MultiHeadAttention(2, bias=False), drawn(2, 5, 8), attention(bias=False)),
    "encoder": Case(P.transformer_block(P.MultiHeadAttention(2), 8, 12, activation=GELU), drawn(2, 5, 8),
                    lambda nn: nn.TransformerEncoderLayer(8, 2, 12, norm_first=True, activation="gelu", batch_first=True), mapping=ENCODER),
    "embedding": Case(S(P.Embedding(9, 4), P.LayerNorm(), P.RMSNorm(eps=1e-5)), np.arange(6, dtype=np.int32).reshape(2, 3),
                      lambda nn: nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.RMSNorm(4, eps=1e-5))),
    "bilinear": Case(S(twice, P.Bilinear(3)), drawn(2, 4), bilinear),
}


def there(a, images):
    return np.moveaxis(a, -1, 1).copy() if images and a.ndim > 2 else a


def record(name):
    """{"w:NAME": …, "y": …}: a state dict of random numbers, and PyTorch's output."""
    import torch
    case = CASES[name]
    module = case.make(torch.nn).eval()
    draw = np.random.default_rng(7)
    state = {}
    for key, value in module.state_dict().items():
        size, sign = draw.uniform(0.2, 1.0, value.shape), draw.choice([-1, 1], value.shape)
        state[key] = torch.tensor(size if "var" in key else size * sign, dtype=value.dtype)
    module.load_state_dict(state)
    with torch.no_grad():
        y = module(torch.from_numpy(there(case.x, case.images)).long() if case.x.dtype == np.int32
                   else torch.from_numpy(there(case.x, case.images)))
    return {f"w:{key}": value.numpy() for key, value in state.items()} | {"y": y.numpy()}


if __name__ == "__main__":
    found = {f"{name}/{key}": value for name in CASES for key, value in record(name).items()}
    np.savez_compressed(RECORDED, **found)
    print(f"wrote {RECORDED}: {len(CASES)} cases, {RECORDED.stat().st_size} bytes")
