"""How much memory a step takes on each device, from shapes, beside what the compiler says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops, optim, train
from fnnet.table import size
from fnnet.train.plan import exchanges

S = jax.ShapeDtypeStruct
ROWS = (S((512, 64), jnp.float32), S((512,), jnp.int32))
DENSE = train.supervised(layers.Serial(layers.Dense(256), ops.relu, layers.Dense(256), ops.relu, layers.Dense(10)),
                         ops.softmax_cross_entropy)


def mesh_of(*shape):
    return jax.make_mesh(shape, ("data", "model")[:len(shape)])


def test_arguments_are_exact():
    plan = train.memory_plan(DENSE, optim.adam(1e-3), ROWS)
    numbers = 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert plan.parameters == plan.gradients == 4 * numbers and plan.batch == 512 * 64 * 4 + 512 * 4
    rest = plan.compiled[0] - (plan.parameters + plan.optimizer + plan.state + plan.batch)
    assert 0 <= rest < 100                                          # the key, the number of the step
    assert "compiled: temporaries" in str(plan) and plan.exchanges == {}


NETWORKS = {
    "dense": (DENSE.net, S((512, 64), jnp.float32)),
    "deep": (layers.Serial(*[layers.Dense(64), ops.tanh] * 8, layers.Dense(10)), S((2048, 64), jnp.float32)),
    "convolution": (layers.Serial(layers.Conv(32), ops.relu, layers.MaxPool((2, 2)), layers.Conv(64), layers.BatchNorm(), ops.relu,
                                  layers.GlobalAvgPool(), layers.Dense(10)), S((64, 32, 32, 3), jnp.float32)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_estimate_is_within_15_percent_of_the_compilers(name):
    net, x = NETWORKS[name]
    plan = train.memory_plan(train.supervised(net, ops.softmax_cross_entropy), optim.adam(1e-3), (x, S(x.shape[:1], jnp.int32)))
    assert 0.85 < plan.estimate / plan.total < 1.15


def test_fully_sharded_each_device_holds_its_share():
    whole, split = (train.memory_plan(DENSE, optim.adam(1e-3), ROWS, mesh_of(8), layout, compile=False) for layout in ("data", "fsdp"))
    assert whole.parameters / 8 <= split.parameters <= 1.1 * whole.parameters / 8
    assert whole.optimizer / 8 <= split.optimizer <= 1.1 * whole.optimizer / 8
    assert split.batch == whole.batch == (512 * 64 * 4 + 512 * 4) // 8


def test_exchanges_of_data_parallel_training_are_the_gradients_once():
    plan = train.memory_plan(DENSE, optim.gradient_descent(0.1), ROWS, mesh_of(8))
    assert list(plan.exchanges) == ["all-reduce"] and plan.gradients <= plan.exchanges["all-reduce"].bytes <= 1.01 * plan.gradients + 100


def test_exchanges_in_a_loop_count_as_often_as_it_runs():
    mesh = mesh_of(8)

    def loop(x):
        return jax.lax.scan(lambda c, _: (jax.lax.psum(c, "data") / 8, None), x, None, length=5)[0]
    f = jax.jit(jax.shard_map(loop, mesh=mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False))
    found = exchanges(f.lower(jnp.ones((4, 6), jnp.float32)).compile().as_text())
    assert found == {"all-reduce": (5, 5 * 4 * 6 * 4)}


def test_advice_names_a_setting_that_fits():
    mesh = mesh_of(4, 2)
    plan = train.memory_plan(DENSE, optim.adam(1e-3), ROWS, mesh, compile=False)
    needed = train.memory_plan(DENSE, optim.adam(1e-3), ROWS, mesh, "fsdp+tensor", compile=False).total
    told = train.memory_plan(DENSE, optim.adam(1e-3), ROWS, mesh, limit=needed, compile=False).advice
    assert told[-1].endswith("fits") and "layout='fsdp" in told[-1]
    assert not train.memory_plan(DENSE, optim.adam(1e-3), ROWS, mesh, limit=plan.total, compile=False).advice
    one = train.memory_plan(DENSE, optim.adam(1e-3), ROWS, compile=False).total
    smaller = train.memory_plan(DENSE, optim.adam(1e-3), ROWS, limit=0.9 * one, compile=False).advice
    assert "optim.accumulate(optimizer, 2) and batches of 256" in smaller[1]


def test_advice_counts_the_sum_of_gradients_that_accumulate_keeps():
    half = (S((256, 64), jnp.float32), S((256,), jnp.int32))
    needed = train.memory_plan(DENSE, optim.accumulate(optim.adam(1e-3), 2), half, compile=False).total
    limit = train.memory_plan(DENSE, optim.adam(1e-3), half, compile=False).total
    told = train.memory_plan(DENSE, optim.adam(1e-3), ROWS, limit=limit, compile=False).advice[1]
    assert "optim.accumulate(optimizer, 2)" in told and size(needed) in told and "fits" not in told


def test_exchanges_that_have_started_count_what_is_received():
    text = """ENTRY %main (p: f32[2]) -> f32[8] {
  %a = (f32[2]{0}, f32[8]{0}) all-gather-start(f32[2]{0} %p), dimensions={0}
  %b = ((f32[2]{0}, bf16[4]{0}), (f32[8]{0}, bf16[16]{0})) all-gather-start(f32[2]{0} %p, bf16[4]{0} %q), dimensions={0}
  %c = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(f32[6]{0} %r)
  %d = f32[3]{0} all-reduce-start(f32[3]{0} %s), to_apply=%sum
}"""
    assert exchanges(text) == {"all-gather": (2, 32 + 32 + 32), "collective-permute": (1, 24), "all-reduce": (1, 12)}


def test_a_hundred_billion_parameters_by_shapes_alone():
    block = layers.transformer_block(layers.MultiHeadAttention(96, causal=True), 12288)
    net = layers.Serial(layers.Embedding(50304, 12288), layers.Repeat(block, 56, keep="inputs"), layers.LayerNorm(), layers.Dense(50304))
    mesh = jax.sharding.AbstractMesh((64, 8), ("data", "model"))
    plan = train.memory_plan(net, optim.adam(1e-3), S((512, 128), jnp.int32), mesh, "fsdp+tensor", compile=False)
    assert plan.parameters * 512 / 4 > 1e11 and plan.optimizer == pytest.approx(2 * plan.parameters, rel=0.01)


@pytest.mark.parametrize("call, sentence", [
    (lambda: train.memory_plan(lambda x: x, optim.adam(1e-3), ROWS), "net must be a network, or an objective .* write train.supervised"),
    (lambda: train.memory_plan(DENSE, optim.adam(1e-3), ROWS, jax.sharding.AbstractMesh((8,), ("data",))), "write compile=False"),
    (lambda: train.memory_plan(DENSE, optim.adam(1e-3), (np.ones((9, 64)), np.ones(9, int)), mesh_of(8)), "leave out the last 1"),
])
def test_wrong_calls_say_what_to_write(call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()
