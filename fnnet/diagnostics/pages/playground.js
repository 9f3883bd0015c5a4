"use strict";
/* The page around network.js: sliders, buttons, keys and drawings. `start` holds the settings that the page opens with. */

const settings = {...start, data_seed: start.seed, batch_size: start.batch_size ?? Infinity}, one = id => document.getElementById(id);
/* Random numbers of their own for the examples, the weights and the order of minibatches, so that these are independent. */
const fresh = {data: () => random(1e6 + settings.data_seed), weights: () => random(settings.seed), order: () => random(2e6 + settings.seed)};
let net, run, data, curve, steps, running = false;         // curve: J_train and J_test after each step

// ---- Controls: a slider has values, a menu has options; restart says what a change begins anew -------------------------------------

const labels = table => Object.fromEntries(Object.entries(table).map(([name, row]) => [name, row.label || name]));
const range = (from, to, by = 1) => make(1, Math.round((to - from) / by) + 1, (_, i) => +(from + i * by).toFixed(6))[0];
const CONTROLS = {
  "Data": [
    {name: "data", label: "data", options: labels(DATA), restart: "data"},
    {name: "noise", label: "noise, standard deviation", values: range(0, 0.6, 0.05), restart: "data"},
    {name: "examples", label: "training examples m", values: range(10, 200, 10), restart: "data"},
  ],
  "Network": [
    {name: "hidden_layers", label: "hidden layers", values: range(0, 4), restart: "weights"},
    {name: "units", label: "hidden units in each", values: range(1, 16), restart: "weights"},
    {name: "activation", label: "activation g", options: labels(ACTIVATIONS), restart: "weights"},
    {name: "weights", label: "initial weights", options: labels(WEIGHTS), restart: "weights"},
  ],
  "Training": [
    {name: "method", label: "method", options: labels(METHODS), restart: "method"},
    {name: "learning_rate", label: "learning rate α", values: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10]},
    {name: "penalty", label: "penalty λ (L2)", values: [0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24]},
    {name: "batch_size", label: "examples in a step", values: [1, 2, 5, 10, 20, Infinity], shown: v => v === Infinity ? "all" : String(v)},
  ],
};
const BUTTONS = {Data: ["new data", "d"], Network: ["new weights", "w"]};

function build(tag, attributes, ...inside) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...inside);
  return made;
}

function buildControl({name, label, options, values, shown = String, restart}) {
  if (options) {
    const menu = build("select", {id: name}, ...Object.entries(options).map(([value, text]) => build("option", {value}, text)));
    menu.value = settings[name];
    menu.onchange = () => change(name, menu.value, restart);
    return build("label", {}, build("span", {}, label), menu);
  }
  const all = [...new Set([...values, settings[name]])].sort((a, b) => a - b);
  const slider = build("input", {id: name, type: "range", min: 0, max: all.length - 1, step: 1});
  slider.value = all.indexOf(settings[name]);
  const output = build("output", {}), say = () => {
    output.textContent = shown(all[slider.value]);
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  slider.oninput = () => { say(); change(name, all[slider.value], restart); };
  say();
  return build("label", {}, build("span", {}, label), output, slider);
}

function change(name, value, restart) {
  settings[name] = value;
  if (restart === "method") run = training(net, settings.method, fresh.order());
  if (restart === "data") newData();
  if (restart === "data" || restart === "weights") newWeights();
  if (!finite()) advance(0);
  else say(restart === "method" ? "V and S of the method start at 0 again" : restart ? "training starts again" : "applies from the next step on");
  draw();
}

// ---- Training --------------------------------------------------------------------------------------------------------------------

function newData() {
  const r = fresh.data();
  data = {train: examples(settings.data, settings.examples, settings.noise, r), test: examples(settings.data, 200, settings.noise, r),
          ...DATA[settings.data]};
}

function newWeights() {
  const hidden = Array(settings.hidden_layers).fill(settings.units);
  net = network([data.regression ? 1 : 2, ...hidden, 1], settings.activation, Boolean(data.regression), settings.weights, fresh.weights());
  run = training(net, settings.method, fresh.order());
  curve = [];
  steps = 0;
  record();
}

function record() {
  curve.push({step: steps, train: cost(net, data.train.X, data.train.Y), test: cost(net, data.test.X, data.test.Y)});
  if (curve.length > 2000) curve = curve.filter((_, i) => i % 2 === 0 || i === curve.length - 1);
}

const finite = () => Number.isFinite(curve.at(-1).train);

/* Trains n steps, or fewer when the time is up; false once J is no longer finite. */
function advance(n, milliseconds = Infinity) {
  const end = performance.now() + milliseconds;
  for (let i = 0; i < n && finite() && (i === 0 || performance.now() < end); i++) {
    trainingStep(net, run, data.train, {alpha: settings.learning_rate, lambda: settings.penalty, batch: settings.batch_size});
    steps += 1;
    record();
  }
  if (!finite()) {
    setRunning(false);
    say("J is no longer finite: the learning rate is too large. Choose a smaller α, then reset.");
  }
  return finite();
}

function setRunning(on) {
  if (running === on) return;
  running = on;
  one("run").textContent = on ? "stop" : "run";
  say(on ? "running" : `stopped after ${steps} steps`);
  if (on) requestAnimationFrame(frame);
}

function frame() {
  if (!running) return;
  advance(10, 15);
  draw();
  requestAnimationFrame(frame);
}

const ACTIONS = {
  " ": () => finite() ? setRunning(!running) : advance(0),
  s: () => { setRunning(false); if (advance(1)) say(`one step: ${steps} in all`); },
  r: () => { setRunning(false); newWeights(); say("back to the initial weights"); },
  w: () => { settings.seed += 1; newWeights(); say("other initial weights"); },
  d: () => { settings.data_seed += 1; newData(); newWeights(); say("other examples of the same kind; training starts again"); },
};
const act = key => { ACTIONS[key](); draw(); };

function say(text) {
  one("said").textContent = text;
}

// ---- Drawing -----------------------------------------------------------------------------------------------------------------------

const color = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const up = n => [...String(n)].map(c => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("");
const digits = v => Number.isFinite(v) ? String(+v.toPrecision(3)).replace("-", "−") : "not finite";
const percent = v => `${(100 * v).toFixed(1)}%`;

/* A canvas as sharp as the screen, with a frame, axis labels and ticks; x and y turn numbers into places on it. */
function chart(canvas, [left, right], [bottom, top], xTicks, yTicks, xName, yName) {
  const size = canvas.clientWidth || 440, sharp = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
  const edge = {l: 46, r: size - 18, t: 10, b: size - 54};            // a square
  canvas.width = Math.round(size * sharp);
  canvas.height = Math.round((edge.b + 40) * sharp);
  pen.scale(sharp, sharp);
  const x = v => edge.l + (v - left) / (right - left) * (edge.r - edge.l), y = v => edge.b - (v - bottom) / (top - bottom) * (edge.b - edge.t);
  const axes = () => {
    pen.strokeStyle = color("edge");
    pen.lineWidth = 1;
    pen.strokeRect(edge.l, edge.t, edge.r - edge.l, edge.b - edge.t);
    pen.fillStyle = color("ink");
    pen.font = "13px system-ui, sans-serif";
    pen.textAlign = "center";
    xTicks.forEach(v => pen.fillText(digits(v), x(v), edge.b + 16));
    pen.fillText(xName, (edge.l + edge.r) / 2, edge.b + 33);
    pen.textAlign = "right";
    yTicks.forEach(v => pen.fillText(digits(v), edge.l - 5, y(v) + 4));
    pen.save();
    pen.translate(13, (edge.t + edge.b) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(yName, 0, 0);
    pen.restore();
  };
  const inside = f => {
    pen.save();
    pen.beginPath();
    pen.rect(edge.l, edge.t, edge.r - edge.l, edge.b - edge.t);
    pen.clip();
    f();
    pen.restore();
  };
  return {pen, x, y, edge, axes, inside};
}

/* Class 1 is a square, class 0 a circle; training examples are large and filled, test examples small and hollow. */
function point(pen, x, y, square, test) {
  const size = test ? 2.5 : 4.5;
  pen.beginPath();
  if (square) pen.rect(x - size, y - size, 2 * size, 2 * size); else pen.arc(x, y, size, 0, 2 * Math.PI);
  pen.lineWidth = 1;
  if (test) {
    pen.strokeStyle = color(square ? "gradient" : "value");
  } else {
    pen.fillStyle = color(square ? "gradient" : "value");
    pen.fill();
    pen.strokeStyle = color("page");
  }
  pen.stroke();
}

function line(pen, places, name, dashes = [], width = 2) {
  pen.beginPath();
  places.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y));
  pen.strokeStyle = color(name);
  pen.lineWidth = width;
  pen.setLineDash(dashes);
  pen.stroke();
  pen.setLineDash([]);
}

const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const predict = X => forward(net, X).a[net.L].map(row => row[0]);
const GRID = 60, SHADE = 0.35;             // points have a contrast of 3 to the deepest shade of either class

/* ŷ over the plane: the shade of a class deepens with its probability; a line where ŷ = ½. */
function drawPlane() {
  const {from, to} = data, ticks = [from, 0, to];
  const {pen, x, y, axes, inside} = chart(one("plane"), [from, to], [from, to], ticks, ticks, "x₁", "x₂");
  const at = i => from + (to - from) * i / GRID;
  const corners = make(GRID + 1, GRID + 1, (i, j) => [at(j), at(i)]), found = corners.map(predict);
  const page = rgb(color("page")), sides = [rgb(color("value")), rgb(color("gradient"))];
  inside(() => {
    for (let i = 0; i < GRID; i++) for (let j = 0; j < GRID; j++) {
      const p = (found[i][j] + found[i][j + 1] + found[i + 1][j] + found[i + 1][j + 1]) / 4, share = SHADE * Math.abs(2 * p - 1);
      const mixed = page.map((v, k) => Math.round(v + share * (sides[p > 0.5 ? 1 : 0][k] - v)));
      pen.fillStyle = `rgb(${mixed})`;
      const [l, r, t, b] = [x(at(j)), x(at(j + 1)), y(at(i + 1)), y(at(i))].map(Math.round);
      pen.fillRect(l, t, r - l, b - t);
    }
    boundary(found, 0.5).forEach(ends => line(pen, ends.map(([i, j]) => [x(at(j)), y(at(i))]), "ink"));
    for (const [set, test] of [[data.test, true], [data.train, false]])
      set.X.forEach(([x1, x2], i) => point(pen, x(x1), y(x2), set.Y[i][0] === 1, test));
  });
  axes();
  one("plane").setAttribute("aria-label", "The plane of x₁ and x₂ with the examples; shaded by the class predicted, deeper where ŷ is surer");
}

/* Pieces of the line where a function on a grid crosses a level: in each cell, between the edges on which it does. */
function boundary(found, level) {
  const pieces = [];
  for (let i = 0; i + 1 < found.length; i++) for (let j = 0; j + 1 < found.length; j++) {
    const around = [[i, j], [i, j + 1], [i + 1, j + 1], [i + 1, j]], ends = [];
    around.forEach(([a, b], k) => {
      const [c, d] = around[(k + 1) % 4], here = found[a][b] - level, there = found[c][d] - level;
      if ((here < 0) === (there < 0)) return;
      const share = here / (here - there);
      ends.push([a + share * (c - a), b + share * (d - b)]);
    });
    for (let k = 0; k + 1 < ends.length; k += 2) pieces.push([ends[k], ends[k + 1]]);
  }
  return pieces;
}

function drawFit() {
  const {from, to} = data;
  const {pen, x, y, axes, inside} = chart(one("plane"), [from, to], [-2, 2], [from, 0, to], [-2, -1, 0, 1, 2], "x", "y");
  const xs = make(1, 201, (_, i) => from + (to - from) * i / 200)[0], found = predict(xs.map(v => [v]));
  inside(() => {
    line(pen, xs.map(v => [x(v), y(Math.sin(Math.PI * v))]), "edge", [4, 4], 1.5);
    for (const [set, test] of [[data.test, true], [data.train, false]])
      set.X.forEach(([v], i) => point(pen, x(v), y(set.Y[i][0]), false, test));
    line(pen, xs.map((v, i) => [x(v), y(found[i])]), "gradient", [], 2.5);
  });
  axes();
  one("plane").setAttribute("aria-label", "The examples and the prediction ŷ as a curve over x");
}

function drawCurves() {
  const seen = curve.filter(h => Number.isFinite(h.train) && Number.isFinite(h.test)), last = steps;
  const top = 1.05 * Math.max(1e-3, ...seen.map(h => Math.min(Math.max(h.train, h.test), 4 * seen[0].test)));    // cut off where J explodes
  const right = Math.max(10, last);
  const tick = 10 ** Math.floor(Math.log10(top)), by = top / tick > 5 ? 2 * tick : top / tick > 2 ? tick : tick / 2;
  const yTicks = make(1, Math.floor(top / by) + 1, (_, i) => i * by)[0];
  const {pen, x, y, edge, axes, inside} = chart(one("curves"), [0, right], [0, top], [0, Math.round(right / 2), right], yTicks, "steps", "J");
  inside(() => {
    line(pen, seen.map(h => [x(h.step), y(h.train)]), "value");
    line(pen, seen.map(h => [x(h.step), y(h.test)]), "gradient", [6, 4]);
  });
  axes();
  [["J_train", "value", []], ["J_test", "gradient", [6, 4]]].forEach(([text, name, dashes], i) => {
    const level = edge.t + 18 + 18 * i;
    line(pen, [[edge.r - 100, level - 4], [edge.r - 64, level - 4]], name, dashes);
    pen.fillStyle = color("ink");
    pen.textAlign = "left";
    pen.fillText(text, edge.r - 58, level);
  });
  one("curves").setAttribute("aria-label", `J_train and J_test over ${last} steps`);
}

const accuracy = ({X, Y}) => predict(X).filter((p, i) => (p > 0.5) === (Y[i][0] === 1)).length / X.length;

function describe(found) {
  const {step, train, test} = curve.at(-1), shrinks = penalty(net, settings.penalty, data.train.X.length);
  one("readout").textContent = `After ${step} step${step === 1 ? "" : "s"} `
    + (finite() ? `J_train = ${digits(train)} and J_test = ${digits(test)}.` : "J is not finite.")
    + (data.regression || !finite() ? "" : ` Accuracy ${percent(accuracy(data.train))} on training, ${percent(accuracy(data.test))} on test examples.`)
    + (settings.penalty ? ` Not drawn: the penalty λ/(2m) Σ W² = ${digits(shrinks)}, which training minimizes as well.` : "");
  one("legend").textContent = data.regression
    ? "Dots: training examples, filled, and 200 test examples, hollow. Solid line: the prediction ŷ. Dashed: sin(πx), from which the data come."
    : "Circles: y\u00a0=\u00a00, squares: y\u00a0=\u00a01; training examples filled, 200 test examples hollow. "
      + "Shades: ŷ, the probability of y\u00a0=\u00a01; line: ŷ\u00a0=\u00a0½.";
  const last = up(net.L), n = settings.batch_size < data.train.X.length ? "n" : "m", lines = {
    forward: `zˡ = aˡ⁻¹·Wˡ + bˡ, aˡ = g(zˡ), ŷ = a${last} = ${data.regression ? "" : "σ("}z${last}${data.regression ? "" : ")"}`,
    "": ACTIVATIONS[settings.activation].formula,
    loss: `J = 1/m Σ ${data.regression ? "½(ŷ − y)²" : "−[y log ŷ + (1 − y) log(1 − ŷ)]"}${settings.penalty ? " + λ/(2m) Σ W²" : ""}`,
    backward: `δ${last} = ŷ − y, δˡ = δˡ⁺¹·(Wˡ⁺¹)ᵀ ⊙ g′(zˡ), ∂J/∂Wˡ = 1/${n} (aˡ⁻¹)ᵀ·δˡ + λ/m Wˡ, ∂J/∂bˡ = 1/${n} Σ δˡ`
      + (n === "n" ? ", n being the number of examples in a step" : ""),
    update: METHODS[settings.method].formula + ", with dθ = ∂J/∂θ, for every θ in Wˡ and bˡ",
  };
  one("formulas").replaceChildren(...Object.entries(lines).map(([name, text]) => build("li", {}, build("b", {}, name), build("span", {}, text))));
  const cells = (tag, row) => build("tr", {}, ...row.map(text => build(tag, {}, text)));
  one("layers").replaceChildren(cells("th", ["layer l", "units", "rms of Wˡ", "rms of δˡ", "rms of ∂J/∂Wˡ"]),
    ...range(1, net.L).map(l => cells("td", [`${l}${l === net.L ? " (output)" : ""}`, String(net.W[l][0].length), digits(rms(net.W[l])),
                                            digits(rms(found.delta[l])), digits(rms(found.dW[l]))])));
  if (one("numbers").open) one("numbers").lastElementChild.replaceChildren(...range(1, net.L).map(l => build("div", {},
    matrix(`W${up(l)}`, net.W[l], "value"), matrix(`b${up(l)}`, net.b[l], "value"),
    matrix(`∂J/∂W${up(l)}`, found.dW[l], "gradient"), matrix(`∂J/∂b${up(l)}`, found.db[l], "gradient"))));
}

function matrix(name, A, kind) {
  return build("table", {className: `m ${kind}`}, build("caption", {}, `${name} [${A.length} ${A[0].length}]`),
               ...A.map(row => build("tr", {}, ...row.map(v => build("td", {}, digits(v))))));
}

function draw() {
  if (finite()) (data.regression ? drawFit : drawPlane)();
  drawCurves();
  describe(backward(net, data.train.X, data.train.Y, settings.penalty, data.train.X.length));
}

// ---- The page ----------------------------------------------------------------------------------------------------------------------

for (const [group, controls] of Object.entries(CONTROLS)) {
  const set = build("fieldset", {}, build("legend", {}, group), ...controls.map(buildControl));
  if (BUTTONS[group]) set.append(build("button", {type: "button", id: BUTTONS[group][1], onclick: () => act(BUTTONS[group][1])}, BUTTONS[group][0]));
  one("controls").append(set);
}
one("run").onclick = () => act(" ");
one("step").onclick = () => act("s");
one("reset").onclick = () => act("r");
one("numbers").ontoggle = draw;
document.onkeydown = event => {
  const own = event.key === " " ? "button, select, summary" : "select";         // where the key has a meaning of its own
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in ACTIONS) || event.target.closest(own)) return;
  event.preventDefault();
  act(event.key);
};
window.onresize = draw;
matchMedia("(prefers-color-scheme: dark)").onchange = draw;
newData();
newWeights();
say("Press run, or step by step; move a slider and see what changes.");
draw();
