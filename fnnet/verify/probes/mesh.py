"""Multiple devices: an Explicit mesh, and shard_map. A rule that raises an error gets a note; a silent wrong answer fails."""

import jax
import numpy as np

from fnnet.verify.case.programs import pullback
from fnnet.verify.oracle import tolerance
from fnnet.verify.probes import shapes
from fnnet.verify.probes.findings import Finding, sentence


def _jit(f):
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None)


def run(p, evaluation, findings):
    at = evaluation.at
    if len(jax.devices()) < 2 or p.forward or p.endless:
        return
    found = [g for g in shapes.groups(p) if any(axis == 0 for _, axis in g)]
    if not found or any(d.kind == "key" for d in p.domains):
        return
    split = {i for i, axis in found[0] if axis == 0}
    q = shapes.resized(p, dict.fromkeys(found[0], 4))
    xs, others = q.split(q.leaves)
    try:
        out = jax.eval_shape(lambda *xs: q.of_real(q.reference, others)(*xs)[0], *xs)
    except Exception:                                   # the function does not accept other shapes
        return
    cts = [np.random.default_rng(5).normal(size=t.shape) for t in out]
    want = tolerance.numbers(_jit(lambda xs, others, cts: pullback(q, q.reference, xs, others, cts).grads)(xs, others, cts))
    devices = jax.devices()[:2]
    mesh = jax.make_mesh((2,), ("data",), devices=devices, axis_types=(jax.sharding.AxisType.Explicit,))

    def place(i, a):
        return jax.device_put(a, jax.P("data") if i in split else jax.P())

    def on_mesh(f):
        with jax.set_mesh(mesh):
            given = [place(i, np.asarray(x)) for i, x in zip(q.real, xs)], [place(i, np.asarray(o)) for i, o in zip(q.rest, others)]
            return tolerance.numbers(_jit(lambda xs, others: jax.grad(lambda *xs: sum((jax.numpy.sum(o * c) for o, c in zip(
                q.of_real(f, others)(*xs)[0], cts)), 0.0), tuple(range(len(xs))))(*xs))(*given))

    def in_shard_map(f):
        auto = jax.make_mesh((2,), ("data",), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))
        specs = tuple([jax.P("data") if i in split else jax.P() for i in idx] for idx in (q.real, q.rest))

        def each(xs, others):
            return [o[None] for o in q.of_real(f, others)(*xs)[0]]
        whole = jax.shard_map(each, mesh=auto, in_specs=specs, out_specs=jax.P("data"))

        def total(xs):
            return sum(jax.numpy.sum(o * weights(o.shape)) for o in whole(xs, others))
        return tolerance.numbers(_jit(jax.grad(total))(list(xs)))

    def weights(shape):
        return np.random.default_rng(7).normal(size=shape)
    for name, on_devices, right in (("mesh", on_mesh, lambda: want), ("shard_map", in_shard_map, lambda: in_shard_map(q.reference))):
        try:
            truth = right()
            if name == "mesh":
                on_devices(q.reference)
        except Exception:
            continue
        try:
            got = on_devices(q.f)
        except Exception as error:
            findings.note(name, f"rejected with an error: {sentence(error)[:120]}")
            continue
        findings.saw(name, tolerance.measure(got, truth), at.gradients.limit)
        for i, (g, w) in enumerate(zip(got, truth)):
            off = tolerance.off(g, w, np.full(w.shape, 10 * at.gradients.allowance(w, i)))
            if off.any():
                findings.wrong(Finding(name, f"{len(devices)} devices: {q.show()}", tolerance.fault(i, g, w, off), q, q.leaves, cts))
