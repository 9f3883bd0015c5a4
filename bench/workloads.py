"""The training jobs given to all contenders: the same data, weights and mathematics, as NumPy arrays."""

from types import ModuleType
from typing import NamedTuple

from bench import convnet, perceptron, recurrent, transformer


class Workload(NamedTuple):
    name: str
    sizes: tuple                # for a perceptron: the features of the input, of every hidden layer, and of the output
    batch: int
    optimizer: str              # "adam", "momentum" (β = 0.9) or "descent"
    rate: float
    dropout: float = 0.0        # the fraction dropped after every hidden layer
    batches: int = 16           # per epoch
    target: tuple = ()          # the fnnet form that is compared with plain JAX per step, and the largest ratio allowed
    compute: str = "float32"            # the dtype of products: parameters stay in the dtype of the job
    model: ModuleType = perceptron      # with examples, weights, forward (plain JAX), network, arranged, objective (fnnet)

    @property
    def kind(self):
        return self.model.__name__.rpartition(".")[2]

    @property
    def small(self):
        """The same mathematics at sizes whose losses are compared in a second, without dropout and at a rate that lets mistakes show."""
        sizes = SMALL.get(self.kind) or (6, *[5] * min(len(self.sizes) - 2, 5), 3)
        return self._replace(sizes=sizes, batch=4, batches=3, dropout=0.0, rate=max(self.rate, 0.01))

    @property
    def title(self):
        if self.model is not perceptron:
            return f"{self.name} {self.sizes}, batch {self.batch}, {self.optimizer}"
        hidden = self.sizes[1:-1]
        deep = len(hidden) > 3
        sizes = (self.sizes[0], f"({hidden[0]}×{len(hidden)})", self.sizes[-1]) if deep else self.sizes
        return (f"{self.name} {'-'.join(map(str, sizes))}, batch {self.batch}, {self.optimizer}"
                + (f", dropout {self.dropout}" if self.dropout else ""))


SMALL = {"convnet": convnet.Sizes(8, (3, 4), 5, 3), "recurrent": recurrent.Sizes(5, 2, 4, 3),
         "transformer": transformer.Sizes(7, 5, 8, 2, 12)}
WORKLOADS = (
    Workload("a", (64, 128, 10), 32, "adam", 1e-3, batches=64, target=("fnnet epoch", 0.5)),
    Workload("b", (784, 512, 256, 10), 128, "adam", 1e-3, dropout=0.2, target=("fnnet step", 1.05)),
    Workload("c", (784, 2048, 2048, 10), 512, "momentum", 1e-2, batches=8, target=("fnnet step", 1.05)),
    Workload("d", convnet.Sizes(28, (32, 64), 128, 10), 64, "adam", 1e-3, batches=2, target=("fnnet epoch", 0.45), model=convnet),
    Workload("e", recurrent.Sizes(64, 64, 128, 10), 32, "adam", 1e-3, target=("fnnet step", 1.0), model=recurrent),
    Workload("f", transformer.Sizes(8192, 128, 128, 4, 512), 16, "adam", 1e-3, batches=4, target=("fnnet step", 0.4), model=transformer),
    Workload("g", (64, *[64] * 50, 10), 32, "adam", 1e-3, batches=32, target=("fnnet step", 1 / 3)),
    Workload("h", (3072, 10), 128, "descent", 1e-2, target=("fnnet step", 0.5)),
)
