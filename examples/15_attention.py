"""A small GPT learns to sort: eight digits, a period, and then the same digits in order.

What follows the period is fully determined, so the lowest possible loss is 0 and the best score 100 %.

    z = softmax(QKᵀ/√d)·V,   Q = xW¹,   K = xW²,   V = xW³
"""

import jax
import jax.numpy as jnp
from gpt import gpt, next_symbol

from fnnet import layers, optim, train

DIGITS, STOP, STEPS, BATCH = 8, 10, 600, 64


def texts(key, n):
    digits = jax.random.randint(key, (n, DIGITS), 0, 10)
    return jnp.concatenate([digits, jnp.full((n, 1), STOP), jnp.sort(digits, 1)], 1)


def questions(text):
    """The input, and the next symbols to predict: none (−1) among the digits to be sorted, which are unpredictable."""
    return text[:, :-1], jnp.where(jnp.arange(2 * DIGITS) < DIGITS, -1, text[:, 1:])


net = gpt(symbols=11, d=32)
objective = next_symbol(net, ignore_index=-1)
optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine(3e-3, steps=STEPS, warmup=30)))
epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=BATCH)

training, test = texts(jax.random.key(0), STEPS * BATCH), texts(jax.random.key(2), 500)
run = train.init(net, optimizer, jax.random.key(1), training[:1, :-1])
evaluate = train.make_evaluate(objective, questions(test), prefix="test_")
for run, log in train.epochs(run, epoch, questions(training), evaluate=evaluate, epochs=1):     # one epoch: no example is seen twice
    print(f"{STEPS} steps: loss {log['loss']:.3f} on average, {log['test_loss']:.4f} on new sequences; the lowest possible is 0")

# One symbol after another, each the most likely one after all before it. The keys and values of earlier symbols are cached.
written = layers.generate(net, run.params, run.state, test[:, :DIGITS + 1], DIGITS, temperature=0)
for prompt, answer in zip(test[:3].tolist(), written[:3].tolist()):
    print(*prompt[:DIGITS], "→", *answer)
score = float((written == test[:, DIGITS + 1:]).all(1).mean())
print(f"sorted: {100 * score:.1f} % of 500 new sequences")

# The result is the same as reading the whole text again for every symbol.
whole = jnp.concatenate([test[:, :DIGITS + 1], written], 1)[:, :-1]
scores, _ = jax.jit(net.apply)(run.params, run.state, whole)
assert (scores[:, DIGITS:].argmax(-1) == written).mean() > 0.999 and score > 0.95
