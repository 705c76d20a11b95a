"""What the machine code of `arlm.programs.native_code` is made of: products of lanes, and exp in vectors."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WIDE = 16  # lanes that one instruction serves
fast = njit(fastmath={"contract", "reassoc", "nsz", "arcp"}, nogil=True, cache=True)

f32 = np.float32
LOG2_E, LN2_HIGH, LN2_LOW = f32(1.44269504), f32(0.693359375), f32(-2.12194440e-4)
S2, S3, S4, S5, S6, S7 = (f32(1 / c) for c in (2, 6, 24, 120, 720, 5040))  # of its series
LOWEST, HIGHEST, HALF, ONE, TWO = f32(-87.0), f32(88.0), f32(0.5), f32(1.0), f32(2.0)


@intrinsic
def power_of_two(typing, n):
    """2 ** n for a whole float32 n from -126 to 127, by its bits."""

    def generate(context, builder, signature, arguments):
        whole = builder.fptosi(arguments[0], ir.IntType(32))
        biased = builder.add(whole, ir.IntType(32)(127))
        return builder.bitcast(builder.shl(biased, ir.IntType(32)(23)), ir.FloatType())

    return types.float32(types.float32), generate


@fast
def exp(x):
    """e ** x to about 2e-7, from sums and products alone, so that a loop over it runs in vectors."""
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
    """A function that adds up products for `count` outputs at a time, kept in registers.

    x[place + r * lanes + l] = x[base + r * lanes + l] + sum_k x[source + k * lanes + l] * w[k * width + r],
    for r below `count`, l below blocks * WIDE, and w from weights[begin] on; without the first term if
    `base` is below 0. Written as the compiler's own instructions, since it cannot know that x does not
    overlap itself. Two blocks halve the reading of weights, which large networks wait for.
    """
    whole, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), WIDE)
    flags = ("contract", "reassoc", "nsz")

    def generate(context, builder, signature, arguments):
        x, weights = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:2], arguments[:2], strict=True)
        )
        source, size, begin, width, base, place, lanes = arguments[2:]

        def lane_vector(first, r, block):
            offset = builder.add(first, builder.mul(lanes, whole(r)))
            offset = builder.add(offset, whole(block * WIDE))
            return builder.bitcast(builder.gep(x, [offset]), vector.as_pointer())

        entry, new = builder.block, builder.append_basic_block
        from_base, loop, body, done = new("from_base"), new("loop"), new("body"), new("done")
        builder.cbranch(builder.icmp_signed("<", base, whole(0)), loop, from_base)
        builder.position_at_end(from_base)
        cells = [(r, block) for r in range(count) for block in range(blocks)]
        begun = [builder.load(lane_vector(base, *cell), align=4) for cell in cells]
        builder.branch(loop)

        builder.position_at_end(loop)
        k, sums = builder.phi(whole), [builder.phi(vector) for _ in cells]
        k.add_incoming(whole(0), entry)
        k.add_incoming(whole(0), from_base)
        for total, start in zip(sums, begun, strict=True):
            total.add_incoming(ir.Constant(vector, [0.0] * WIDE), entry)
            total.add_incoming(start, from_base)
        builder.cbranch(builder.icmp_signed("<", k, size), body, done)

        builder.position_at_end(body)
        values = [
            builder.load(lane_vector(builder.add(source, builder.mul(k, lanes)), 0, n), align=4)
            for n in range(blocks)
        ]
        first = builder.add(begin, builder.mul(k, width))
        undefined = ir.Constant(vector, ir.Undefined)
        same = ir.Constant(ir.VectorType(ir.IntType(32), WIDE), [0] * WIDE)
        for r in range(count):
            weight = builder.load(builder.gep(weights, [builder.add(first, whole(r))]))
            single = builder.insert_element(undefined, weight, ir.IntType(32)(0))
            spread = builder.shuffle_vector(single, undefined, same)
            for n in range(blocks):
                product = builder.fmul(values[n], spread, flags=flags)
                total = sums[r * blocks + n]
                total.add_incoming(builder.fadd(total, product, flags=flags), body)
        k.add_incoming(builder.add(k, whole(1)), body)
        builder.branch(loop)

        builder.position_at_end(done)
        for total, cell in zip(sums, cells, strict=True):
            builder.store(total, lane_vector(place, *cell), align=4)
        return context.get_dummy_value()

    @intrinsic
    def product(typing, x, weights, source, size, begin, width, base, place, lanes):
        return types.void(x, weights, *[types.int64] * 7), generate

    return product


product_of_four, product_of_one = lanes_product(4, 1), lanes_product(1, 1)
product_of_two_fours, product_of_two_ones = lanes_product(4, 2), lanes_product(1, 2)
