"use strict";
/* A small network and its training, in the notation of the lectures. Plain JavaScript: no library, no network, no page.

   m examples, one a row. Layer l = 1 … L has weights Wˡ [units of layer l-1, units of layer l] and biases bˡ [1, units of layer l].

     forward    a⁰ = X     zˡ = aˡ⁻¹·Wˡ + bˡ     aˡ = g(zˡ) in hidden layers     ŷ = aᴸ = σ(zᴸ), or zᴸ in a regression
     cost       J = 1/m Σ −[y log ŷ + (1−y) log(1−ŷ)], or 1/(2m) Σ (ŷ−y)² in a regression;  + λ/(2m) Σ W², without the biases
     backward   δᴸ = ŷ − y     δˡ = δˡ⁺¹·(Wˡ⁺¹)ᵀ ⊙ g′(zˡ)     ∂J/∂Wˡ = 1/m (aˡ⁻¹)ᵀ·δˡ + λ/m Wˡ     ∂J/∂bˡ = 1/m Σ δˡ

   Here δˡ is the derivative of one example's loss, hence the 1/m. W[1], z[1], a[1] and δ[1] belong to layer 1, as in the formulas. */

// ---- Matrices: arrays of rows -------------------------------------------------------------------------------------------------

const make = (rows, columns, f) => Array.from({length: rows}, (_, i) => Array.from({length: columns}, (_, j) => f(i, j)));
const each = (A, f) => A.map((row, i) => row.map((v, j) => f(v, i, j)));
const transpose = A => A[0].map((_, j) => A.map(row => row[j]));
function times(A, B) {                                              // A·B: element i, j is row i of A times column j of B
  const columns = transpose(B);
  return A.map(row => columns.map(column => {
    let sum = 0;
    for (let k = 0; k < row.length; k++) sum += row[k] * column[k];
    return sum;
  }));
}
const sumOfRows = A => [A[0].map((_, j) => A.reduce((sum, row) => sum + row[j], 0))];
const total = A => A.reduce((sum, row) => row.reduce((s, v) => s + v, sum), 0);
const rms = A => Math.sqrt(total(each(A, v => v * v)) / (A.length * A[0].length));      // root of the mean of the squares

// ---- Random numbers: the same seed gives the same numbers -----------------------------------------------------------------------

/* x ← 48271 x mod (2³¹ − 1), the "minimal standard" of Park and Miller; its products stay below 2⁵³, so doubles hold them exactly. */
function random(seed) {
  let x = 1 + (Math.abs(Math.trunc(seed)) * 7919) % 2147483646;
  const uniform = () => (x = 48271 * x % 2147483647) / 2147483647;
  for (let i = 0; i < 10; i++) uniform();
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());     // Box and Muller
  const shuffled = n => {
    const order = Array.from({length: n}, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = Math.floor(uniform() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  };
  return {uniform, normal, shuffled};
}

// ---- Data: a point without noise and its label; noise is added to the coordinates, in a regression to y ------------------------------

const DATA = {
  xor: {label: "XOR", from: -1, to: 2, point: i => {
    const [x1, x2] = [[0, 0], [0, 1], [1, 0], [1, 1]][i % 4];
    return [[x1, x2], x1 === x2 ? 0 : 1];
  }},
  clouds: {label: "two clouds", from: -2, to: 2, point: (i, r) => {
    const y = i % 2, center = y ? 0.6 : -0.6;
    return [[center + 0.3 * r.normal(), center + 0.3 * r.normal()], y];
  }},
  circles: {label: "circles", from: -2, to: 2, point: (i, r) => {
    const y = i % 2, angle = 2 * Math.PI * r.uniform(), radius = y ? 0.5 : 1.2;
    return [[radius * Math.cos(angle), radius * Math.sin(angle)], y];
  }},
  moons: {label: "two moons", from: -2, to: 2, point: (i, r) => {
    const y = i % 2, angle = Math.PI * r.uniform();
    return [y ? [0.5 - Math.cos(angle), 0.2 - Math.sin(angle)] : [Math.cos(angle) - 0.5, Math.sin(angle) - 0.2], y];
  }},
  sine: {label: "sine (regression)", regression: true, from: -1.5, to: 1.5, point: (i, r) => {
    const x = 2 * r.uniform() - 1;
    return [[x], Math.sin(Math.PI * x)];
  }},
};

/* m examples: inputs X [m 2], or [m 1] in a regression, and targets Y [m 1]. */
function examples(name, m, noise, r) {
  const {point, regression} = DATA[name], X = [], Y = [];
  for (let i = 0; i < m; i++) {
    const [x, y] = point(i, r);
    X.push(regression ? x : x.map(v => v + noise * r.normal()));
    Y.push([regression ? y + noise * r.normal() : y]);
  }
  return {X, Y};
}

// ---- The network --------------------------------------------------------------------------------------------------------------

const sigmoid = z => 1 / (1 + Math.exp(-z));

/* Activations g with their derivatives g′, written with z or with a = g(z), whichever is shorter. ReLU′(0) is taken as 0. */
const ACTIVATIONS = {
  tanh: {g: Math.tanh, slope: (z, a) => 1 - a * a, formula: "g = tanh, g′(z) = 1 − a²"},
  sigmoid: {g: sigmoid, slope: (z, a) => a * (1 - a), formula: "g = σ, g′(z) = a(1 − a)"},
  relu: {g: z => Math.max(0, z), slope: z => z > 0 ? 1 : 0, formula: "g(z) = max(0, z), g′(z) = 1 if z > 0, else 0"},
  identity: {g: z => z, slope: () => 1, formula: "g(z) = z, g′(z) = 1"},
};

/* Initial weights, n being the number of units below. With equal weights all hidden units compute the same and stay the same. */
const WEIGHTS = {
  random: {label: "random, N(0, 1/n)", draw: (n, r) => r.normal() / Math.sqrt(n)},
  equal: {label: "all 0.5", draw: () => 0.5},
  zero: {label: "all 0", draw: () => 0},
};

/* A network with these numbers of units, [2, 4, 1] for two inputs, four hidden units and one output. */
function network(sizes, activation, regression, weights, r) {
  const W = [null], b = [null];
  for (let l = 1; l < sizes.length; l++) {
    W[l] = make(sizes[l - 1], sizes[l], () => WEIGHTS[weights].draw(sizes[l - 1], r));
    b[l] = make(1, sizes[l], () => 0);
  }
  return {W, b, L: sizes.length - 1, activation: ACTIVATIONS[activation], regression};
}

function forward(net, X) {
  const {W, b, L, activation, regression} = net, z = [null], a = [X];
  for (let l = 1; l <= L; l++) {
    z[l] = each(times(a[l - 1], W[l]), (v, i, j) => v + b[l][0][j]);
    a[l] = l < L ? each(z[l], activation.g) : regression ? z[l] : each(z[l], sigmoid);
  }
  return {z, a};
}

/* J without the penalty. The cross-entropy is computed from z, log(1 + eᶻ) − y z: log ŷ would be −∞ where ŷ rounds to 0. */
function cost(net, X, Y) {
  const {z} = forward(net, X), m = X.length;
  const loss = net.regression ? (z, y) => (z - y) ** 2 / 2
                              : (z, y) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))) - y * z;
  return total(each(z[net.L], (v, i, j) => loss(v, Y[i][j]))) / m;
}

/* λ/(2m) Σ W², m being the number of training examples. */
const penalty = (net, lambda, m) => lambda / (2 * m) * net.W.slice(1).reduce((sum, W) => sum + total(each(W, w => w * w)), 0);

/* The gradients for the n examples X, Y, of m training examples in all; n = m unless minibatches are used. */
function backward(net, X, Y, lambda, m) {
  const {W, L, activation} = net, {z, a} = forward(net, X), n = X.length, delta = [], dW = [null], db = [null];
  delta[L] = each(a[L], (prediction, i, j) => prediction - Y[i][j]);           // for either cost with its output unit
  for (let l = L; l >= 1; l--) {
    dW[l] = each(times(transpose(a[l - 1]), delta[l]), (v, i, j) => v / n + lambda / m * W[l][i][j]);
    db[l] = each(sumOfRows(delta[l]), v => v / n);
    if (l > 1) delta[l - 1] = each(times(delta[l], transpose(W[l])), (v, i, j) => v * activation.slope(z[l - 1][i][j], a[l - 1][i][j]));
  }
  return {delta, dW, db};
}

// ---- Training -----------------------------------------------------------------------------------------------------------------

/* θ ← θ − step, d being dθ = ∂J/∂θ. V and S are kept for every parameter and start at 0; t = 1, 2, … counts the steps. ε = 10⁻⁸ stands
   inside the root. */
const METHODS = {
  "gradient descent": {formula: "θ ← θ − α dθ", step: (d, kept, alpha) => alpha * d},
  momentum: {formula: "V ← βV + (1−β)dθ, θ ← θ − αV, β = 0.9", step: (d, kept, alpha) => {
    kept.V = 0.9 * kept.V + 0.1 * d;
    return alpha * kept.V;
  }},
  RMSprop: {formula: "S ← βS + (1−β)dθ², θ ← θ − α dθ/√(S+ε), β = 0.999", step: (d, kept, alpha) => {
    kept.S = 0.999 * kept.S + 0.001 * d * d;
    return alpha * d / Math.sqrt(kept.S + 1e-8);
  }},
  Adam: {formula: "V ← β₁V + (1−β₁)dθ, S ← β₂S + (1−β₂)dθ², θ ← θ − α V̂/√(Ŝ+ε), V̂ = V/(1−β₁ᵗ), Ŝ = S/(1−β₂ᵗ), β₁ = 0.9, β₂ = 0.999",
    step: (d, kept, alpha, t) => {
      kept.V = 0.9 * kept.V + 0.1 * d;
      kept.S = 0.999 * kept.S + 0.001 * d * d;
      return alpha * (kept.V / (1 - 0.9 ** t)) / Math.sqrt(kept.S / (1 - 0.999 ** t) + 1e-8);
    }},
};

/* What a training needs besides the network: V and S of the method, and the order in which minibatches take the examples. */
function training(net, method, r) {
  const keep = A => A && each(A, () => ({V: 0, S: 0}));
  return {method, t: 0, kept: {W: net.W.map(keep), b: net.b.map(keep)}, order: [], r};
}

/* The indices of the next minibatch; each pass over the examples takes them in a new order. The last batch of a pass may be smaller. */
function nextBatch(run, m, size) {
  if (size >= m) return Array.from({length: m}, (_, i) => i);
  if (!run.order.length) run.order = run.r.shuffled(m);
  return run.order.splice(0, size);
}

/* One step on a minibatch (or on all examples) changes net and run; returns the gradients before it, and the batch. */
function trainingStep(net, run, {X, Y}, {alpha, lambda, batch}) {
  const chosen = nextBatch(run, X.length, batch);
  const found = backward(net, chosen.map(i => X[i]), chosen.map(i => Y[i]), lambda, X.length);
  const {step} = METHODS[run.method];
  run.t += 1;
  for (let l = 1; l <= net.L; l++) {
    net.W[l] = each(net.W[l], (w, i, j) => w - step(found.dW[l][i][j], run.kept.W[l][i][j], alpha, run.t));
    net.b[l] = each(net.b[l], (b, i, j) => b - step(found.db[l][i][j], run.kept.b[l][i][j], alpha, run.t));
  }
  return {...found, chosen};
}
