"""Schedules: the learning rate as a function of the step, counted from 0. A schedule stands wherever a number does."""

import jax.numpy as jnp

from fnnet.optim.optimizer import real

__all__ = ["constant", "cosine", "exponential_decay", "inverse_time_decay", "step_decay"]


def constant(rate):
    """α(s) = α₀"""
    return lambda step: real(rate)


def inverse_time_decay(rate, decay=1.0, *, steps_per_epoch=1):
    """α(s) = α₀/(1 + decay·epoch),   epoch = ⌊s/steps_per_epoch⌋

    With α₀ = 0.2 and decay 1: 0.2, 0.1, 0.0667, 0.05.
    """
    _positive("inverse_time_decay", steps_per_epoch=steps_per_epoch)
    return lambda step: real(rate) / (1 + real(decay) * real(step // steps_per_epoch))


def exponential_decay(rate, decay, *, steps=1):
    """α(s) = α₀·decay^(s/steps)"""
    _positive("exponential_decay", steps=steps)
    return lambda step: real(rate) * real(decay) ** (real(step) / steps)


def step_decay(rate, decay, *, steps):
    """α(s) = α₀·decay^⌊s/steps⌋"""
    _positive("step_decay", steps=steps)
    return lambda step: real(rate) * real(decay) ** real(step // steps)


def cosine(rate, *, steps, warmup=0, final=0.0):
    """α(s) = α₀·s/warmup, then final + (α₀ − final)·½(1 + cos π(s − warmup)/(steps − warmup)), then final   [Loshchilov & Hutter 2017]

    `steps` counts the whole, warm-up included.
    """
    _positive("cosine", steps=steps)
    if not 0 <= warmup < steps:
        raise ValueError(f"cosine warms up for {warmup} of {steps} steps: give warmup less than steps")

    def schedule(step):
        s, first, last = real(step), real(rate), real(final)
        along = jnp.clip((s - warmup) / (steps - warmup), 0, 1)
        falling = last + (first - last) * 0.5 * (1 + jnp.cos(jnp.pi * along))
        return jnp.where(s < warmup, first * s / max(warmup, 1), falling)
    return schedule


def _positive(name, **counts):
    for what, count in counts.items():
        if not count > 0:
            raise ValueError(f"{name} counts {what}, and was given {count}: give a number above 0")
