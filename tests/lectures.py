"""Where each topic of the lectures is: function, test and example. `python tests/lectures.py` prints the README's table."""

from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    what: str
    functions: str              # names inside fnnet, with spaces between
    test: str                   # file::function, file::function[case]
    example: str                # the start of a file's name in examples/


RULES, ACTIVATIONS, LOSSES = "test_rules.py::test_audit", "ops/test_activations.py", "ops/test_losses.py"
NUMBER = "test_lectures.py::test_worked_number"

ROWS = {
    "1. Networks": [
        Row("h⁰ = x, hⁱ = fⁱ(hⁱ⁻¹, Wⁱ): a sequence of layers", "layers.Serial",
            "layers/test_layers.py::test_shape_dtype_and_gradient", "09"),
        Row("a = Σ w x + b, z = h(a): units, each layer its own activation", "layers.Dense ops.dense", RULES, "03"),
        Row("linear scores f(x, W) = Wx, CIFAR-10: 3072 → 10", "data.read_cifar10 layers.Dense",
            "test_cli.py::test_train_cifar10_with_a_linear_classifier", "08"),
        Row("output units: sigmoid, softmax, identity", "ops.sigmoid ops.softmax ops.identity",
            "test_lectures.py::test_delta_of_a_sigmoid_or_softmax_with_cross_entropy_is_prediction_minus_target", "04"),
        Row("weights from N(0, σ²), small random values", "layers.initializers.normal",
            "layers/test_layers.py::test_initializers_have_their_documented_spread", "08"),
    ],
    "2. Activations": [
        Row("identity", "ops.identity", RULES, "04"),
        Row("sigmoid, σ′ = a(1 − a) ≤ ¼", "ops.sigmoid", f"{ACTIVATIONS}::test_sigmoid_gradients_vanish", "04"),
        Row("tanh", "ops.tanh", f"{ACTIVATIONS}::test_values_at_zero_and_infinity", "04"),
        Row("ReLU, 0 at 0", "ops.relu", f"{ACTIVATIONS}::test_conventions_match_jax_nn", "04"),
        Row("leaky ReLU, any α", "ops.leaky_relu", f"{ACTIVATIONS}::test_leaky_relu_with_any_slope", "04"),
        Row("PReLU, a learned", "ops.prelu layers.PReLU", f"{ACTIVATIONS}::test_prelu_learns_one_slope_or_one_per_channel", "04"),
        Row("ELU", "ops.elu", f"{ACTIVATIONS}::test_elu_with_any_alpha", "04"),
        Row("maxout, k pieces", "ops.maxout layers.Maxout", f"{ACTIVATIONS}::test_maxout_is_the_maximum_of_two_linear_maps", "04"),
        Row("softmax, ∂aⱼ/∂zₖ = aⱼ(δⱼₖ − aₖ)", "ops.softmax", f"{ACTIVATIONS}::test_softmax_derivative_matches_the_course", "04"),
    ],
    "3. Losses and penalties": [
        Row("squared error, each normalization: (ŷ − y)², ½ mean, ½ Σ, 1/(2m) Σ", "ops.squared_error",
            f"{LOSSES}::test_squared_errors_of_the_lectures", "05"),
        Row("binary cross-entropy, from probabilities and from logits", "ops.binary_cross_entropy ops.binary_cross_entropy_with_logits",
            f"{LOSSES}::test_binary_cross_entropy_in_float32_matches_fifty_digits", "05"),
        Row("softmax cross-entropy from scores", "ops.softmax_cross_entropy",
            f"{LOSSES}::test_softmax_cross_entropy_in_float32_matches_fifty_digits", "05"),
        Row("multiclass hinge", "ops.multiclass_hinge", f"{LOSSES}::test_hinge_of_cat_car_and_frog", "05"),
        Row("triplet", "ops.triplet", f"{LOSSES}::test_triplet_by_hand", "05"),
        Row("L2, λΣw² and λ/(2m) Σθ² without the bias", "ops.l2 ops.weights_of", "ops/test_penalties.py::test_l2_without_biases", "11"),
        Row("L1, elastic net", "ops.l1 ops.elastic_net", "ops/test_penalties.py::test_the_formulas", "05"),
        Row("dropout", "ops.dropout layers.Dropout", "ops/test_dropout.py::test_the_fraction_that_is_dropped", "05"),
        Row("batch normalization", "ops.batch_norm layers.BatchNorm",
            "layers/test_layers.py::test_batch_norm_updates_running_statistics_and_uses_them_at_test_time", "05"),
        Row("stochastic depth", "ops.stochastic_depth layers.StochasticDepth",
            "ops/test_dropout.py::test_whole_examples_are_dropped", "05"),
        Row("early stopping by the validation score", "train.fit", "train/test_train.py::test_fit_stops_early_and_keeps_the_best", "10"),
    ],
    "4. Backpropagation": [
        Row("two stages on a computation graph: values, then ∂L/∂u = Σ ∂L/∂v · ∂v/∂u", "diagnostics.trace",
            "diagnostics/test_trace.py::test_both_stages_are_described_in_order", "02"),
        Row("layer form: ∂l/∂Wⁱ and ∂l/∂hⁱ⁻¹ from ∂l/∂hⁱ", "rule ops.dense", RULES, "06"),
        Row("δⱼ = h′(aⱼ) Σ wₖⱼδₖ, ∂E/∂wⱼᵢ = δⱼzᵢ, in vectors", "layers.Serial",
            "test_lectures.py::test_deltas_of_the_two_layer_networks", "03"),
        Row("forward difference, h = 10⁻⁴", "verify.forward_difference", f"{NUMBER}[forward differences]", "02"),
        Row("central difference and ‖a − b‖/(‖a‖ + ‖b‖)", "gradient_check verify.relative_error",
            "verify/test_gradient.py::test_float32_network_passes_in_float64", "06"),
        Row("vanishing gradients: σ′ ≤ ¼, layer after layer", "diagnostics.gradient_flow",
            "diagnostics/test_flow.py::test_reported_rate_matches_the_layers", "12"),
        Row("dead ReLU units", "diagnostics.gradient_flow", "diagnostics/test_flow.py::test_faults_are_reported_with_a_remedy", "12"),
    ],
    "5. Training": [
        Row("random minibatch, gradient, update, until a criterion", "train.make_step train.make_epoch train.epochs",
            "train/test_train.py::test_epoch_equals_the_steps_over_its_batches", "09"),
        Row("full batch, minibatch, example by example", "train.make_epoch",
            "train/test_train.py::test_epoch_equals_the_steps_over_its_batches", "08"),
        Row("gradient descent", "optim.gradient_descent", "optim/test_optim.py::test_methods_match_their_formulas", "08"),
        Row("momentum, V = βV + (1 − β)g and V = βV + g", "optim.momentum", "optim/test_optim.py::test_methods_match_their_formulas", "08"),
        Row("RMSprop, ε inside the root or outside", "optim.rmsprop", "optim/test_optim.py::test_methods_match_their_formulas", "08"),
        Row("Adam with bias correction", "optim.adam", "optim/test_optim.py::test_methods_match_their_formulas", "08"),
        Row("decay α₀/(1 + rate·epoch)", "optim.inverse_time_decay", f"{NUMBER}[learning-rate decay]", "08"),
        Row("choice of the learning rate", "train.range_test train.sweep",
            "train/test_sweep.py::test_range_test_finds_rates_that_train", "11"),
        Row("choice of λ from 0, 0.01, 0.02, … 10 by the validation error", "train.sweep diagnostics.validation_curve",
            "train/test_sweep.py::test_sweep_equals_its_trainings_one_by_one", "11"),
        Row("bias or variance", "diagnostics.bias_or_variance", "diagnostics/test_choosing.py::test_bias_or_variance_in_words", "10"),
        Row("J_train and J_validation against m", "train.size_curve diagnostics.size_curve",
            "train/test_sweep.py::test_more_examples_bring_training_and_validation_together", "11"),
    ],
    "6. Worked numbers": [
        Row("one neuron: ŷ = 0.3, L = 0.49, dL/dw = −4.2, w = 4.3", "ops.squared_error optim.gradient_descent",
            f"{NUMBER}[neuron: dL/dw]", "01"),
        Row("three sigmoid layers, ∂J/∂W³, ∂J/∂W², ∂J/∂W¹", "ops.sigmoid",
            "test_lectures.py::test_three_layer_sigmoid_network_of_the_slide", "02"),
        Row("hinge 2.9, 0, 12.9, mean 5.27", "ops.multiclass_hinge", f"{NUMBER}[hinge of three images]", "05"),
        Row("hinge 0 for W and for 2W", "ops.multiclass_hinge", f"{NUMBER}[hinge of 2W, once 0]", "05"),
        Row("same score, L2 penalty 1 and ¼", "ops.l2", f"{NUMBER}[L2 of w₁ and w₂]", "05"),
        Row("L(w) + ‖w‖ = 3, 7, 3.5: the best w from 3 to 1", "ops.l1", f"{NUMBER}[best w with ‖w‖]", "05"),
        Row("loss 1.25347 and its slopes −2.5, 0.6, 0", "verify.forward_difference", f"{NUMBER}[forward differences, by the slide]", "02"),
        Row("f = (x + y)z = −12: ∂f/∂q = ∂f/∂x = ∂f/∂y = −4, ∂f/∂z = 3", "diagnostics.trace",
            "diagnostics/test_trace.py::test_the_circuit_of_the_lectures", "02"),
        Row("tanh and identity: δₖ = yₖ − tₖ, δⱼ = (1 − zⱼ²) Σ wₖⱼδₖ", "ops.tanh ops.dense",
            "test_lectures.py::test_deltas_of_the_two_layer_networks[tanh, identity]", "03"),
        Row("sigmoid and sigmoid: δₖ = yₖ(1 − yₖ)(yₖ − tₖ), δⱼ = zⱼ(1 − zⱼ) Σ wₖⱼδₖ", "ops.sigmoid ops.squared_error",
            "test_lectures.py::test_deltas_of_the_two_layer_networks[sigmoid, sigmoid]", "02"),
        Row("learning rates 0.2, 0.1, 0.0667, 0.05", "optim.inverse_time_decay", f"{NUMBER}[learning-rate decay]", "08"),
        Row("δ = ŷ − y for sigmoid and softmax with cross-entropy", "ops.softmax_cross_entropy ops.binary_cross_entropy_with_logits",
            "test_lectures.py::test_delta_of_a_sigmoid_or_softmax_with_cross_entropy_is_prediction_minus_target", "05"),
    ],
}


def example(start):
    return next((Path(__file__).parents[1] / "examples").glob(f"{start}_*.py"))


def markdown():
    lines = ["| in the lectures | function | test | example |", "|---|---|---|---|"]
    for chapter, rows in ROWS.items():
        lines.append(f"| **{chapter}** | | | |")
        for row in rows:
            functions = ", ".join(f"`{name}`" for name in row.functions.split())
            lines.append(f"| {row.what.replace('|', chr(92) + '|')} | {functions} | `{row.test}` | `{example(row.example).name}` |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
