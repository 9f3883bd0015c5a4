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
inputs in, outputs out, compared with the answers by a loss J | train.supervised train.make_step | 09 | |
gradient descent: predict, loss, gradient, a step against it, again | optim.gradient_descent train.epochs | 01 08 | learning_rates |
the forward pass | layers.Serial | 03 | |
a network is a function F: X → Y, which its weights define | layers.Serial diagnostics.summary | 03 | |
the chain rule | diagnostics.trace | 02 | gate |
∂J/∂Wₖ for every weight says which way to adjust it | layers.Dense ops.dense | 03 | optimizer_paths | dense
functions with nice derivatives | rule ops.sigmoid | 04 | activations | sigmoid tanh
numerical issues: losses from scores, not from probabilities | ops.softmax_cross_entropy ops.binary_cross_entropy_with_logits | 05 | |
∂J/∂W³ = (ŷ − y)a³, and on to ∂J/∂W² and ∂J/∂W¹ | ops.sigmoid | 02 | |
σ′(z) = σ(z)(1 − σ(z)) | ops.sigmoid | 04 | activations | sigmoid
one neuron: L = 0.49, dL/dw = −4.2, w = 4.3 | ops.squared_error optim.gradient_descent | 01 | |
backpropagation passes the loss back | layers.Dense ops.dense | 03 | | dense
w ← w − η ∂L/∂w | optim.apply_updates | 01 | learning_rates |
vanishing gradients: σ′ ≤ ¼ at each layer | diagnostics.gradient_flow | 12 | vanishing activations |
ReLU and other activations against it | ops.relu diagnostics.gradient_flow | 12 | vanishing activations |
tanh: 0 at 0, ±1 at ±∞ | ops.tanh | 04 | activations | tanh
ReLU = max(0, z) | ops.relu | 04 | activations |
leaky ReLU = max(αz, z) | ops.leaky_relu | 04 | activations |
from one update to a full training | train.fit | 09 | digits |""",
    "B. The training algorithm": """
cross-entropy −(y log f + (1 − y) log(1 − f)) | ops.binary_cross_entropy | 05 | |
θ is initialized at random | layers.initializers.normal train.init | 08 | histograms initialization |
repeat until a stopping criterion is met | train.epochs train.fit | 09 | | early_stopping
a random batch B of T < n examples; T is a hyperparameter | train.make_epoch | 08 | batches |
θ ← θ − η ∇l | optim.gradient_descent | 08 | learning_rates optimizer_paths |
Wᵢⱼ⁽ᵏ⁾: a layer, its output node and its input node | layers.Dense | 03 | |
∂L/∂u = Σ ∂L/∂v · ∂v/∂u over the nodes v that use u | diagnostics.trace | 02 | gate |
∂L/∂w = ∂L/∂u · ∂u/∂w with ∂u/∂w = g′·z | layers.Dense ops.sigmoid | 03 | | dense sigmoid
two stages: the value of each node, then the gradients from ∂L/∂L = 1 | diagnostics.trace | 02 | gate |
derivatives in vector form | layers.Dense ops.dense | 03 | | dense
a computational graph of two layers, with δ at each node | layers.Serial diagnostics.trace | 03 | |
∂l/∂ŷ = −y/ŷ + (1 − y)/(1 − ŷ) | ops.binary_cross_entropy | 05 | |
∂ŷ/∂z = g′(z) | ops.sigmoid | 04 | activations | sigmoid
∂z/∂w = a, and ∂z¹/∂W¹ = x | layers.Dense ops.dense | 03 | | dense
L2: l + λ‖W‖² | ops.l2 ops.weights_of | 10 11 | decision_regions polynomial |
dropout: a neuron is active with probability p | ops.dropout layers.Dropout | 05 10 | decision_regions dropout |
at test time the entire network, with expected weights | layers.Dropout | 05 | dropout |
early stopping on the validation set | train.fit | 10 | decision_regions | early_stopping""",
    "C. Gradients of neural networks": """
h⁰ = x, hⁱ = fⁱ(hⁱ⁻¹, Wⁱ) | layers.Serial | 03 | |
f(x, θ) with θ = {Wⁱ} | layers.Serial train.init | 09 | |
l(θ) = ½E[(f(X, θ) − Y)²] | ops.squared_error | 05 | |
a batch of m samples, x [m n₀], y [m 1] | train.make_epoch | 09 | batches |
l_D(θ) = 1/m · ½ Σ (f(xᵢ, θ) − yᵢ)² | ops.squared_error | 05 | |
∇l(θ) with respect to all parameters | gradient_check | 06 | | gradient_checking
forward pass: the outputs of each layer, and the loss | train.supervised | 09 | |
backward pass: ∂l/∂f, then ∂l/∂Wᵏ and ∂l/∂hᵏ⁻¹, until W¹ | layers.Serial ops.dense | 03 | | dense
∂l/∂Wⁱ and ∂l/∂hⁱ⁻¹ for any layer f | rule | 06 07 | | convolution lstm_step attention batch_norm""",
    "D. Neural network basics": """
the network diagram of nodes and links | layers.Serial diagnostics.trace diagnostics.summary | 03 | network gate |
raw activations aⱼ = Σ wⱼᵢxᵢ + wⱼ₀ | layers.Dense ops.dense | 03 | | dense
nonlinear activation zⱼ = h(aⱼ) | ops.tanh ops.relu | 04 | activations | tanh
binary output y = σ(a) | ops.sigmoid | 04 | activations | sigmoid
multiclass output y = softmax(a) | ops.softmax | 04 | softmax | softmax_cross_entropy
yₖ(x, w) in one formula | layers.Serial | 03 | |
PReLU: max(ax, x), a learned | ops.prelu layers.PReLU | 04 | activations |
maxout | ops.maxout layers.Maxout | 04 | activations |
ELU | ops.elu | 04 | activations |
a multi-layer network is a nonlinear classifier | diagnostics.decision_boundary | 10 | linear_layers xor |
more hidden units approximate more functions | layers.Dense | 10 | hidden_units |
a neuron: weighted inputs, then a function of their sum | ops.dense ops.identity | 01 | perceptron |
output over threshold: the neuron fires | ops.dense ops.sigmoid | 01 04 | perceptron |
units that see a small part of the image, as Hubel and Wiesel found | layers.Conv | 13 | convolution | convolution
neurons are cascaded, each layer has its weights | layers.Serial | 09 | network |
deep networks, lots of hidden layers | layers.Serial layers.Residual | 12 | vanishing batch_norm |
no closed form: weights are found step by step | optim.gradient_descent | 08 | optimizer_paths |
the best w of L(w), and of L(w) + ‖w‖ | ops.l1 | 05 | |
CIFAR-10, 50,000 images of 32×32×3 in ten classes | data.read_cifar10 data.digits | 09 | |
scores f(x, W) = Wx | layers.Dense | 08 | scores templates |
an image of 4 pixels, 3 classes: s = Wx + b | layers.Dense | 08 | scores |
each row of W is a template for a class | layers.Dense diagnostics.first_layer | 08 | scores templates |
scores of the cat, the car and the frog | ops.multiclass_hinge | 05 | hinge_and_softmax softmax |
hinge Lᵢ = Σ max(0, sⱼ − s_y + 1): 2.9, 0, 12.9; mean 5.3 | ops.multiclass_hinge | 05 | hinge_and_softmax |
W is not unique: 2W has the hinge loss 0 too | ops.multiclass_hinge | 05 | |
data loss + λR(W) | train.supervised ops.l2 | 10 11 | polynomial |
L2, L1 and elastic net | ops.l2 ops.l1 ops.elastic_net | 05 | |
dropout, batch normalization, stochastic depth | layers.Dropout layers.BatchNorm layers.StochasticDepth | 05 | batch_norm | batch_norm
w₁ᵀx = w₂ᵀx, and L2 prefers the spread-out w₂ | ops.l2 | 05 | |
preferring simple models | ops.l2 diagnostics.decision_boundary | 10 | decision_regions polynomial |
cross-entropy −log P(Y = y | X = x) | ops.softmax_cross_entropy | 05 | softmax hinge_and_softmax | softmax_cross_entropy
multinomial logistic regression, by maximum likelihood | ops.softmax_cross_entropy layers.Dense | 08 | templates | softmax_cross_entropy
scores are unnormalized log probabilities: eˢ/Σeˢ | ops.softmax ops.softmax_cross_entropy | 04 05 | softmax | softmax_cross_entropy
triplet loss | ops.triplet | 05 | triplet |
any loss you want, almost | rule | 06 07 | |
the derivative as a limit; the gradient, of all partial derivatives | verify.forward_difference | 02 | tangent |
loss 1.25347, W + h: −2.5, 0.6, 0 | verify.forward_difference | 02 | tangent | gradient_checking
calculus instead of differences | rule gradient_check | 06 | | gradient_checking
∂(w·x)/∂w = x | ops.dense | 01 | | dense
w ← w − η∇E(w): opposite to the gradient | optim.gradient_descent | 08 | learning_rates |
the choice of the learning rate | train.range_test train.sweep | 11 | learning_rates |
local optima and oscillation | optim.gradient_descent | 08 | xor loss_surface learning_rates |
epochs: all training data once | train.make_epoch train.epochs | 09 | digits |
number of layers and hidden units: by the validation set | train.sweep | 11 | |
the error goes from higher layers to lower layers, top weights first | layers.Serial ops.dense | 03 | backward_steps | dense
err = dL/d act · d act/d raw, and w ← w − η·err·in | layers.Serial ops.dense | 03 | backward_steps | dense
dL/dwₖⱼ = dL/dyₖ · dyₖ/daₖ · daₖ/dwₖⱼ for output units | ops.sigmoid ops.squared_error | 02 | | dense sigmoid
dL/dwⱼᵢ = dL/dzⱼ · dzⱼ/daⱼ · daⱼ/dwⱼᵢ for hidden units | ops.sigmoid ops.tanh | 02 | | dense tanh
δⱼ = h′(aⱼ) Σ wₖⱼδₖ and ∂E/∂wⱼᵢ = δⱼzᵢ | layers.Serial | 03 | backward_steps | dense
sigmoid units and squared error: δₖ = yₖ(1 − yₖ)(yₖ − tₖ) | ops.sigmoid ops.squared_error | 02 | | sigmoid
tanh and identity: δₖ = yₖ − tₖ, δⱼ = (1 − zⱼ²) Σ wₖⱼδₖ | ops.tanh | 03 | backward_steps | tanh
for each example: outputs, errors, update | train.make_epoch | 08 | batches |
computation graphs: upstream and downstream gradients | diagnostics.trace | 02 | gate |
f = (x + y)z at −2, 5, −4: −4, −4, 3 | diagnostics.trace | 02 | gate |
training with little data: augmented examples | train.augment.crop | 13 | augmentation |""",
    "E. Training deep networks": """
L layers of s_l units | layers.Serial diagnostics.summary | 03 | |
how much a small change of the weights changes the loss | optim.gradient_descent | 08 | loss_surface | gradient_checking
weights ~ N(0, σ²), then gradient and update until convergence | layers.initializers.normal train.epochs | 08 | histograms initialization |
∂J/∂θ⁽¹⁾ = ∂J/∂y · ∂y/∂z₁ · ∂z₁/∂θ⁽¹⁾ | diagnostics.trace | 02 | gate |
equal weights stay equal: why they are random | layers.initializers.normal layers.initializers.zeros | 08 | initialization |
a⁽¹⁾ = x, z⁽²⁾ = Θ⁽¹⁾a⁽¹⁾, a⁽²⁾ = g(z⁽²⁾), … | layers.Serial | 03 | |
δ⁽⁴⁾ = a⁽⁴⁾ − y, δ⁽³⁾ = Θ⁽³⁾ᵀδ⁽⁴⁾ .* g′(z⁽³⁾) | ops.dense ops.sigmoid | 02 | backward_steps | dense sigmoid
without nonlinear activations all layers are one | ops.identity | 04 | linear_layers xor |
each layer may have another activation | layers.Serial | 09 | |
sigmoid: for the final layer | ops.sigmoid | 04 | activations | sigmoid
tanh: a scaled sigmoid, symmetric | ops.tanh | 04 | activations | tanh
small gradients where |z| is large; ReLU | ops.relu diagnostics.gradient_flow | 12 | vanishing activations |
ReLU does not activate all units at the same time | ops.relu | 04 | activations |
dead neurons, and leaky ReLU | ops.leaky_relu diagnostics.gradient_flow | 04 12 | activations |
softmax | ops.softmax | 04 | softmax activations | softmax_cross_entropy
which activation, when | diagnostics.gradient_flow | 04 12 | activations_on_digits vanishing |
gradient checking: (J(θ + ε) − J(θ − ε))/2ε | gradient_check | 06 | tangent | gradient_checking
diff = ‖dθ_approx − dθ‖/(‖dθ_approx‖ + ‖dθ‖) | verify.relative_error | 02 | tangent | gradient_checking
momentum: V = βV + (1 − β)dθ, θ = θ − αV | optim.momentum | 08 | optimizer_paths | momentum
averaging smooths the oscillation | optim.momentum optim.nesterov | 08 | optimizer_paths | momentum
RMSprop | optim.rmsprop | 08 | optimizer_paths |
Adam, with bias correction | optim.adam | 08 | optimizer_paths | adam
which optimizer, when | optim.adam optim.momentum | 08 | optimizers_on_digits optimizer_paths |
learning rate decay α₀/(1 + rate·epoch) | optim.inverse_time_decay | 08 | decay |
batch normalization of z | ops.batch_norm layers.BatchNorm | 05 12 | batch_norm | batch_norm
training error 1 %, test error 10 %: variance; both high: bias | diagnostics.bias_or_variance | 10 11 | learning_curves polynomial |
training and test data of different distributions | diagnostics.bias_or_variance | 10 11 | |
regularization moves bias and variance | ops.l2 diagnostics.validation_curve | 11 | learning_curves polynomial |
h(x) = θ₀ + θ₁x + …, with λ/(2m) Σ θⱼ² | ops.l2 | 11 | polynomial |
λ = 0.01, 0.02, 0.04, … 10 by the validation error | train.sweep diagnostics.validation_curve | 11 | learning_curves polynomial |
learning curves J_train and J_validation | train.size_curve diagnostics.learning_curve | 11 | learning_curves digits |""",
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
