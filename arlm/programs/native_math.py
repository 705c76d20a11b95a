"""Arithmetic of `arlm.programs.native_code`: matrix products on SIMD lanes, and a vectorised exp."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

SIMD_WIDTH = 16  # lanes that one instruction processes
fast = njit(fastmath={"contract", "reassoc", "nsz", "arcp"}, nogil=True, cache=True)

f32 = np.float32
LOG2_E, LN2_HIGH, LN2_LOW = f32(1.44269504), f32(0.693359375), f32(-2.12194440e-4)
# Coefficients 1 / k! of the Taylor series of exp.
S2, S3, S4, S5, S6, S7 = (f32(1 / c) for c in (2, 6, 24, 120, 720, 5040))
LOWEST, HIGHEST, HALF, ONE, TWO = f32(-87.0), f32(88.0), f32(0.5), f32(1.0), f32(2.0)


@intrinsic
def power_of_two(typing, n):
    """2 ** n for an integral float32 n in [-126, 127]: n + 127 becomes the exponent bits of the result."""

    def generate(context, builder, signature, arguments):
        integer = builder.fptosi(arguments[0], ir.IntType(32))
        biased = builder.add(integer, ir.IntType(32)(127))
        return builder.bitcast(builder.shl(biased, ir.IntType(32)(23)), ir.FloatType())

    return types.float32(types.float32), generate


@fast
def exp(x):
    """e ** x to about 2e-7, from sums and products only, so that the compiler vectorises loops over it."""
    x = min(max(x, LOWEST), HIGHEST)
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN2_HIGH - n * LN2_LOW
    y = (((S7 * r + S6) * r + S5) * r + S4) * r + S3
    return (((y * r + S2) * r + ONE) * r + ONE) * power_of_two(n)  # type: ignore[call-arg]


@fast
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return ONE / (ONE + exp(-x))


@fast
def tanh(x):
    """2 sigmoid(2 x) - 1."""
    return TWO / (ONE + exp(-TWO * x)) - ONE


@fast
def elu(x):
    """x if positive, else exp(x) - 1."""
    return max(x, f32(0)) + exp(min(x, f32(0))) - ONE


def lanes_product(count, blocks):
    """Build the function that computes `count` outputs of a linear map for blocks * SIMD_WIDTH lanes.

    x[target + r * lanes + l] = x[base + r * lanes + l] + sum_k x[source + k * lanes + l] * w[k * width + r]

    for r < count and l < blocks * SIMD_WIDTH, where w starts at weights[begin]; if base < 0, the first term
    is left out. It is written in LLVM's instructions to keep the sums in registers: the compiler would not,
    because it cannot know that source and target do not overlap. Two blocks halve the loads of weights,
    which limit the speed of large networks.
    """
    int64, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), SIMD_WIDTH)
    flags = ("contract", "reassoc", "nsz")

    def generate(context, builder, signature, arguments):
        x, weights = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:2], arguments[:2], strict=True)
        )
        source, size, begin, width, base, target, lanes = arguments[2:]

        def lane_vector(first, r, block):
            offset = builder.add(first, builder.mul(lanes, int64(r)))
            offset = builder.add(offset, int64(block * SIMD_WIDTH))
            return builder.bitcast(builder.gep(x, [offset]), vector.as_pointer())

        entry, new = builder.block, builder.append_basic_block
        from_base, loop, body, done = new("from_base"), new("loop"), new("body"), new("done")
        builder.cbranch(builder.icmp_signed("<", base, int64(0)), loop, from_base)
        builder.position_at_end(from_base)
        outputs = [(r, block) for r in range(count) for block in range(blocks)]
        initial = [builder.load(lane_vector(base, *output), align=4) for output in outputs]
        builder.branch(loop)

        builder.position_at_end(loop)
        k, sums = builder.phi(int64), [builder.phi(vector) for _ in outputs]
        k.add_incoming(int64(0), entry)
        k.add_incoming(int64(0), from_base)
        for total, start in zip(sums, initial, strict=True):
            total.add_incoming(ir.Constant(vector, [0.0] * SIMD_WIDTH), entry)
            total.add_incoming(start, from_base)
        builder.cbranch(builder.icmp_signed("<", k, size), body, done)

        builder.position_at_end(body)
        values = [
            builder.load(lane_vector(builder.add(source, builder.mul(k, lanes)), 0, n), align=4)
            for n in range(blocks)
        ]
        first = builder.add(begin, builder.mul(k, width))
        undefined = ir.Constant(vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), SIMD_WIDTH), [0] * SIMD_WIDTH)
        for r in range(count):
            weight = builder.load(builder.gep(weights, [builder.add(first, int64(r))]))
            single = builder.insert_element(undefined, weight, ir.IntType(32)(0))
            broadcast = builder.shuffle_vector(single, undefined, zeros)
            for n in range(blocks):
                product = builder.fmul(values[n], broadcast, flags=flags)
                total = sums[r * blocks + n]
                total.add_incoming(builder.fadd(total, product, flags=flags), body)
        k.add_incoming(builder.add(k, int64(1)), body)
        builder.branch(loop)

        builder.position_at_end(done)
        for total, output in zip(sums, outputs, strict=True):
            builder.store(total, lane_vector(target, *output), align=4)
        return context.get_dummy_value()

    @intrinsic
    def product(typing, x, weights, source, size, begin, width, base, target, lanes):
        return types.void(x, weights, *[types.int64] * 7), generate

    return product


product_of_four, product_of_one = lanes_product(4, 1), lanes_product(1, 1)
product_of_two_fours, product_of_two_ones = lanes_product(4, 2), lanes_product(1, 2)
