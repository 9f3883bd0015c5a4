"""The concepts of the five lectures, and where to find them. `python tests/concepts.py` prints the table of examples/CONCEPTS.md.

A row: the concept | names inside fnnet | numbers of examples | pictures | exercises.
"""

from pathlib import Path
from typing import NamedTuple

EXAMPLES = Path(__file__).parents[1] / "examples"


class Row(NamedTuple):
    what: str
    functions: tuple
    examples: tuple
    pictures: tuple
    exercises: tuple


LECTURES = {
    "A. Backpropagation and vanishing gradients": """
inputs in, outputs out, compared with the answers by a loss J | train.supervised train.make_step | 04 | |
gradient descent: predict, loss, gradient, a step against it, again | optim.gradient_descent train.epochs | 01 14 | learning_rates |
the forward pass | layers.Serial | 02 | |
a network is a function F: X → Y, which its weights define | layers.Serial diagnostics.summary | 02 | |
the chain rule | diagnostics.trace | 15 | gate |
∂J/∂Wₖ for every weight says which way to adjust it | layers.Dense ops.dense | 02 | optimizer_paths | dense
functions with nice derivatives | rule ops.sigmoid | 12 | activations | sigmoid tanh
numerical issues: losses from scores, not from probabilities | ops.softmax_cross_entropy ops.binary_cross_entropy_with_logits | 13 | |
∂J/∂W³ = (ŷ − y)a³, and on to ∂J/∂W² and ∂J/∂W¹ | ops.sigmoid | 15 | |
σ′(z) = σ(z)(1 − σ(z)) | ops.sigmoid | 12 | activations | sigmoid
one neuron: L = 0.49, dL/dw = −4.2, w = 4.3 | ops.squared_error optim.gradient_descent | 01 | |
backpropagation passes the loss back | layers.Dense ops.dense | 02 | | dense
w ← w − η ∂L/∂w | optim.apply_updates | 01 | learning_rates |
vanishing gradients: σ′ ≤ ¼ at each layer | diagnostics.gradient_flow | 07 | vanishing activations |
ReLU and other activations against it | ops.relu diagnostics.gradient_flow | 07 | vanishing activations |
tanh: 0 at 0, ±1 at ±∞ | ops.tanh | 12 | activations | tanh
ReLU = max(0, z) | ops.relu | 12 | activations |
leaky ReLU = max(αz, z) | ops.leaky_relu | 12 | activations |
from one update to a full training | train.fit | 04 | digits |""",
    "B. The training algorithm": """
cross-entropy −(y log f + (1 − y) log(1 − f)) | ops.binary_cross_entropy | 13 | |
θ is initialized at random | layers.initializers.normal train.init | 14 | histograms initialization |
repeat until a stopping criterion is met | train.epochs train.fit | 04 | | early_stopping
a random batch B of T < n examples; T is a hyperparameter | train.make_epoch | 14 | batches |
θ ← θ − η ∇l | optim.gradient_descent | 14 | learning_rates optimizer_paths |
Wᵢⱼ⁽ᵏ⁾: a layer, its output node and its input node | layers.Dense | 02 | |
∂L/∂u = Σ ∂L/∂v · ∂v/∂u over the nodes v that use u | diagnostics.trace | 15 | gate |
∂L/∂w = ∂L/∂u · ∂u/∂w with ∂u/∂w = g′·z | layers.Dense ops.sigmoid | 02 | | dense sigmoid
two stages: the value of each node, then the gradients from ∂L/∂L = 1 | diagnostics.trace | 15 | gate |
derivatives in vector form | layers.Dense ops.dense | 02 | | dense
a computational graph of two layers, with δ at each node | layers.Serial diagnostics.trace | 02 | |
∂l/∂ŷ = −y/ŷ + (1 − y)/(1 − ŷ) | ops.binary_cross_entropy | 13 | |
∂ŷ/∂z = g′(z) | ops.sigmoid | 12 | activations | sigmoid
∂z/∂w = a, and ∂z¹/∂W¹ = x | layers.Dense ops.dense | 02 | | dense
L2: l + λ‖W‖² | ops.l2 ops.weights_of | 05 06 | decision_regions polynomial |
dropout: a neuron is active with probability p | ops.dropout layers.Dropout | 05 13 | decision_regions dropout |
at test time the entire network, with expected weights | layers.Dropout | 13 | dropout |
early stopping on the validation set | train.fit | 05 | decision_regions | early_stopping""",
    "C. Gradients of neural networks": """
h⁰ = x, hⁱ = fⁱ(hⁱ⁻¹, Wⁱ) | layers.Serial | 02 | |
f(x, θ) with θ = {Wⁱ} | layers.Serial train.init | 04 | |
l(θ) = ½E[(f(X, θ) − Y)²] | ops.squared_error | 13 | |
a batch of m samples, x [m n₀], y [m 1] | train.make_epoch | 04 | batches |
l_D(θ) = 1/m · ½ Σ (f(xᵢ, θ) − yᵢ)² | ops.squared_error | 13 | |
∇l(θ) with respect to all parameters | gradient_check | 03 | | gradient_checking
forward pass: the outputs of each layer, and the loss | train.supervised | 04 | |
backward pass: ∂l/∂f, then ∂l/∂Wᵏ and ∂l/∂hᵏ⁻¹, until W¹ | layers.Serial ops.dense | 02 | | dense
∂l/∂Wⁱ and ∂l/∂hⁱ⁻¹ for any layer f | rule | 03 11 | | convolution lstm_step attention batch_norm""",
    "D. Neural network basics": """
the network diagram of nodes and links | layers.Serial diagnostics.trace diagnostics.summary | 02 | network gate |
raw activations aⱼ = Σ wⱼᵢxᵢ + wⱼ₀ | layers.Dense ops.dense | 02 | | dense
nonlinear activation zⱼ = h(aⱼ) | ops.tanh ops.relu | 12 | activations | tanh
binary output y = σ(a) | ops.sigmoid | 12 | activations | sigmoid
multiclass output y = softmax(a) | ops.softmax | 12 | softmax | softmax_cross_entropy
yₖ(x, w) in one formula | layers.Serial | 02 | |
PReLU: max(ax, x), a learned | ops.prelu layers.PReLU | 12 | activations |
maxout | ops.maxout layers.Maxout | 12 | activations |
ELU | ops.elu | 12 | activations |
a multi-layer network is a nonlinear classifier | diagnostics.decision_boundary | 05 | linear_layers xor |
more hidden units approximate more functions | layers.Dense | 05 | hidden_units |
a neuron: weighted inputs, then a function of their sum | ops.dense ops.identity | 01 | perceptron |
output over threshold: the neuron fires | ops.dense ops.sigmoid | 01 12 | perceptron |
neurons are cascaded, each layer has its weights | layers.Serial | 04 | network |
deep networks, lots of hidden layers | layers.Serial layers.Residual | 07 | vanishing batch_norm |
no closed form: weights are found step by step | optim.gradient_descent | 14 | optimizer_paths |
the best w of L(w), and of L(w) + ‖w‖ | ops.l1 | 13 | |
CIFAR-10, 50,000 images of 32×32×3 in ten classes | data.read_cifar10 data.digits | 04 | |
scores f(x, W) = Wx | layers.Dense | 14 | scores templates |
an image of 4 pixels, 3 classes: s = Wx + b | layers.Dense | 14 | scores |
each row of W is a template for a class | layers.Dense diagnostics.first_layer | 14 | scores templates |
scores of the cat, the car and the frog | ops.multiclass_hinge | 13 | hinge_and_softmax softmax |
hinge Lᵢ = Σ max(0, sⱼ − s_y + 1): 2.9, 0, 12.9; mean 5.3 | ops.multiclass_hinge | 13 | hinge_and_softmax |
W is not unique: 2W has the hinge loss 0 too | ops.multiclass_hinge | 13 | |
data loss + λR(W) | train.supervised ops.l2 | 05 06 | polynomial |
L2, L1 and elastic net | ops.l2 ops.l1 ops.elastic_net | 13 | |
dropout, batch normalization, stochastic depth | layers.Dropout layers.BatchNorm layers.StochasticDepth | 13 | batch_norm | batch_norm
w₁ᵀx = w₂ᵀx, and L2 prefers the spread-out w₂ | ops.l2 | 13 | |
preferring simple models | ops.l2 diagnostics.decision_boundary | 05 | decision_regions polynomial |
cross-entropy −log P(Y = y | X = x) | ops.softmax_cross_entropy | 13 | softmax hinge_and_softmax | softmax_cross_entropy
multinomial logistic regression, by maximum likelihood | ops.softmax_cross_entropy layers.Dense | 14 | templates | softmax_cross_entropy
scores are unnormalized log probabilities: eˢ/Σeˢ | ops.softmax ops.softmax_cross_entropy | 12 13 | softmax | softmax_cross_entropy
triplet loss | ops.triplet | 13 | triplet |
any loss you want, almost | rule | 03 11 | |
the derivative as a limit; the gradient, of all partial derivatives | verify.forward_difference | 15 | tangent |
loss 1.25347, W + h: −2.5, 0.6, 0 | verify.forward_difference | 15 | tangent | gradient_checking
calculus instead of differences | rule gradient_check | 03 | | gradient_checking
∂(w·x)/∂w = x | ops.dense | 01 | | dense
w ← w − η∇E(w): opposite to the gradient | optim.gradient_descent | 14 | learning_rates |
the choice of the learning rate | train.range_test train.sweep | 06 | learning_rates |
local optima and oscillation | optim.gradient_descent | 14 | xor loss_surface learning_rates |
epochs: all training data once | train.make_epoch train.epochs | 04 | digits |
number of layers and hidden units: by the validation set | train.sweep | 06 | |
the error goes from higher layers to lower layers, top weights first | layers.Serial ops.dense | 02 | backward_steps | dense
err = dL/d act · d act/d raw, and w ← w − η·err·in | layers.Serial ops.dense | 02 | backward_steps | dense
dL/dwₖⱼ = dL/dyₖ · dyₖ/daₖ · daₖ/dwₖⱼ for output units | ops.sigmoid ops.squared_error | 15 | | dense sigmoid
dL/dwⱼᵢ = dL/dzⱼ · dzⱼ/daⱼ · daⱼ/dwⱼᵢ for hidden units | ops.sigmoid ops.tanh | 15 | | dense tanh
δⱼ = h′(aⱼ) Σ wₖⱼδₖ and ∂E/∂wⱼᵢ = δⱼzᵢ | layers.Serial | 02 | backward_steps | dense
sigmoid units and squared error: δₖ = yₖ(1 − yₖ)(yₖ − tₖ) | ops.sigmoid ops.squared_error | 15 | | sigmoid
tanh and identity: δₖ = yₖ − tₖ, δⱼ = (1 − zⱼ²) Σ wₖⱼδₖ | ops.tanh | 02 | backward_steps | tanh
for each example: outputs, errors, update | train.make_epoch | 14 | batches |
computation graphs: upstream and downstream gradients | diagnostics.trace | 15 | gate |
f = (x + y)z at −2, 5, −4: −4, −4, 3 | diagnostics.trace | 15 | gate |
training with little data: augmented examples | train.augment.crop | 08 | augmentation |""",
    "E. Training deep networks": """
L layers of s_l units | layers.Serial diagnostics.summary | 02 | |
how much a small change of the weights changes the loss | optim.gradient_descent | 14 | loss_surface | gradient_checking
weights ~ N(0, σ²), then gradient and update until convergence | layers.initializers.normal train.epochs | 14 | histograms initialization |
∂J/∂θ⁽¹⁾ = ∂J/∂y · ∂y/∂z₁ · ∂z₁/∂θ⁽¹⁾ | diagnostics.trace | 15 | gate |
equal weights stay equal: why they are random | layers.initializers.normal layers.initializers.zeros | 14 | initialization |
a⁽¹⁾ = x, z⁽²⁾ = Θ⁽¹⁾a⁽¹⁾, a⁽²⁾ = g(z⁽²⁾), … | layers.Serial | 02 | |
δ⁽⁴⁾ = a⁽⁴⁾ − y, δ⁽³⁾ = Θ⁽³⁾ᵀδ⁽⁴⁾ .* g′(z⁽³⁾) | ops.dense ops.sigmoid | 15 | backward_steps | dense sigmoid
without nonlinear activations all layers are one | ops.identity | 12 | linear_layers xor |
each layer may have another activation | layers.Serial | 04 | |
sigmoid: for the final layer | ops.sigmoid | 12 | activations | sigmoid
tanh: a scaled sigmoid, symmetric | ops.tanh | 12 | activations | tanh
small gradients where |z| is large; ReLU | ops.relu diagnostics.gradient_flow | 07 | vanishing activations |
ReLU does not activate all units at the same time | ops.relu | 12 | activations |
dead neurons, and leaky ReLU | ops.leaky_relu diagnostics.gradient_flow | 07 12 | activations |
softmax | ops.softmax | 12 | softmax activations | softmax_cross_entropy
which activation, when | diagnostics.gradient_flow | 07 12 | activations_on_digits vanishing |
gradient checking: (J(θ + ε) − J(θ − ε))/2ε | gradient_check | 03 | tangent | gradient_checking
diff = ‖dθ_approx − dθ‖/(‖dθ_approx‖ + ‖dθ‖) | verify.relative_error | 15 | tangent | gradient_checking
momentum: V = βV + (1 − β)dθ, θ = θ − αV | optim.momentum | 14 | optimizer_paths | momentum
averaging smooths the oscillation | optim.momentum optim.nesterov | 14 | optimizer_paths | momentum
RMSprop | optim.rmsprop | 14 | optimizer_paths |
Adam, with bias correction | optim.adam | 14 | optimizer_paths | adam
which optimizer, when | optim.adam optim.momentum | 14 | optimizers_on_digits optimizer_paths |
learning rate decay α₀/(1 + rate·epoch) | optim.inverse_time_decay | 14 | decay |
batch normalization of z | ops.batch_norm layers.BatchNorm | 07 13 | batch_norm | batch_norm
training error 1 %, test error 10 %: variance; both high: bias | diagnostics.bias_or_variance | 05 06 | learning_curves polynomial |
training and test data of different distributions | diagnostics.bias_or_variance | 05 06 | |
regularization moves bias and variance | ops.l2 diagnostics.validation_curve | 06 | learning_curves polynomial |
h(x) = θ₀ + θ₁x + …, with λ/(2m) Σ θⱼ² | ops.l2 | 06 | polynomial |
λ = 0.01, 0.02, 0.04, … 10 by the validation error | train.sweep diagnostics.validation_curve | 06 | learning_curves polynomial |
learning curves J_train and J_validation | train.size_curve diagnostics.learning_curve | 06 | learning_curves digits |""",
}


def rows(text):
    for line in text.strip().splitlines():
        what, *cells = line.rsplit(" |", 4)
        yield Row(what, *(tuple(cell.split()) for cell in cells))


ROWS = {lecture: list(rows(text)) for lecture, text in LECTURES.items()}


def example(number):
    return next(EXAMPLES.glob(f"{number}_*.py"))


def markdown():
    lines = ["| concept | in fnnet | example | picture | exercise |", "|---|---|---|---|---|"]
    for lecture, found in ROWS.items():
        lines.append(f"| **{lecture}** | | | | |")
        for row in found:
            cells = [row.what.replace("|", r"\|"), ", ".join(f"`{name}`" for name in row.functions),
                     ", ".join(f"[{number}]({example(number).name})" for number in row.examples),
                     ", ".join(f"[{name}](pictures/{name}.svg)" for name in row.pictures),
                     ", ".join(f"[{name}](exercises/{name}.py)" for name in row.exercises)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
