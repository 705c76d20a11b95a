"""The compiled half of `arlm.layers.native`: imports numba, compiles once and keeps the result on disk.

Images lie one after the other, or side by side as `lanes`, so that one instruction serves `WIDE` of them:
number n of lane l is x[n * lanes + l]. A call works on the lanes from `first` to `last`.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# What is kept on disk is renewed when this file changes, and for no other: so all numbers stand here.
WIDE = 16  # lanes that one instruction serves
LINEAR, RELU, ELU, CONCAT_ELU, TANH_GATE, GATE, LSTM, ADD, COPY, ATTEND = range(10)
A, B, C, OUT = 5, 10, 15, 20  # where the parts of an operation begin in its row of the table
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


def lanes_product(count):
    """A function that adds up products with WIDE lanes for `count` outputs at a time, kept in registers.

    x[place + r * lanes + l] = x[base + r * lanes + l] + sum_k x[source + k * lanes + l] * w[k * width + r],
    for r below `count`, l below WIDE, and w from weights[begin] on; without the first term if `base` is
    below 0. Written as the compiler's own instructions, since it cannot know that x does not overlap itself.
    """
    whole, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), WIDE)
    flags = ("contract", "reassoc", "nsz")

    def generate(context, builder, signature, arguments):
        x, weights = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:2], arguments[:2], strict=True)
        )
        source, size, begin, width, base, place, lanes = arguments[2:]

        def lane_vector(first, r=0):
            offset = builder.add(first, builder.mul(lanes, whole(r)))
            return builder.bitcast(builder.gep(x, [offset]), vector.as_pointer())

        entry, new = builder.block, builder.append_basic_block
        from_base, loop, body, done = new("from_base"), new("loop"), new("body"), new("done")
        builder.cbranch(builder.icmp_signed("<", base, whole(0)), loop, from_base)
        builder.position_at_end(from_base)
        begun = [builder.load(lane_vector(base, r), align=4) for r in range(count)]
        builder.branch(loop)

        builder.position_at_end(loop)
        k, sums = builder.phi(whole), [builder.phi(vector) for _ in range(count)]
        k.add_incoming(whole(0), entry)
        k.add_incoming(whole(0), from_base)
        for total, start in zip(sums, begun, strict=True):
            total.add_incoming(ir.Constant(vector, [0.0] * WIDE), entry)
            total.add_incoming(start, from_base)
        builder.cbranch(builder.icmp_signed("<", k, size), body, done)

        builder.position_at_end(body)
        values = builder.load(lane_vector(builder.add(source, builder.mul(k, lanes))), align=4)
        first = builder.add(begin, builder.mul(k, width))
        undefined = ir.Constant(vector, ir.Undefined)
        same = ir.Constant(ir.VectorType(ir.IntType(32), WIDE), [0] * WIDE)
        for r, total in enumerate(sums):
            weight = builder.load(builder.gep(weights, [builder.add(first, whole(r))]))
            single = builder.insert_element(undefined, weight, ir.IntType(32)(0))
            spread = builder.shuffle_vector(single, undefined, same)
            product = builder.fmul(values, spread, flags=flags)
            total.add_incoming(builder.fadd(total, product, flags=flags), body)
        k.add_incoming(builder.add(k, whole(1)), body)
        builder.branch(loop)

        builder.position_at_end(done)
        for r, total in enumerate(sums):
            builder.store(total, lane_vector(place, r), align=4)
        return context.get_dummy_value()

    @intrinsic
    def product(typing, x, weights, source, size, begin, width, base, place, lanes):
        return types.void(x, weights, *[types.int64] * 7), generate

    return product


product_of_four, product_of_one = lanes_product(4), lanes_product(1)


@fast
def where(op, part, row, column):
    """First number of a part at a pixel."""
    return op[part] + row * op[part + 3] + column // op[part + 4] * op[part + 2]


@fast
def linear(x, source, size, weights, begin, place, width, base):
    """place = source @ weights, plus what stands at `base`; one image, four inputs at a time."""
    y = x[place : place + width]
    for o in range(width):
        y[o] = f32(0) if base < 0 else x[base + o]
    whole = size // 4 * 4
    for k in range(0, whole, 4):
        a, b, c, d = x[source + k], x[source + k + 1], x[source + k + 2], x[source + k + 3]
        w = weights[begin + k * width : begin + (k + 4) * width]
        for o in range(width):
            y[o] += a * w[o] + b * w[width + o] + c * w[2 * width + o] + d * w[3 * width + o]
    for k in range(whole, size):
        w = weights[begin + k * width : begin + (k + 1) * width]
        for o in range(width):
            y[o] += x[source + k] * w[o]


@fast
def linear_lanes(x, source, size, weights, begin, place, width, base, lanes, first, last):
    """The same for some lanes, WIDE at a time."""
    for lane in range(first, last, WIDE):
        a, y = source * lanes + lane, place * lanes + lane
        b = base * lanes + lane if base >= 0 else -1
        o = 0
        while o < width:
            z, w, at = b + o * lanes if b >= 0 else -1, begin + o, y + o * lanes
            if o + 4 <= width:
                product_of_four(x, weights, a, size, w, width, z, at, lanes)
                o += 4
            else:
                product_of_one(x, weights, a, size, w, width, z, at, lanes)
                o += 1


@fast
def attend(x, query, size, keys, right, values, wide, seen, out, scores, lanes, lane):
    """softmax(q k^T / sqrt(d)) v over the first `seen` pixels, one lane; zeros where there are none."""
    for o in range(wide):
        x[(out + o) * lanes + lane] = f32(0)
    if seen == 0:
        return
    scale, most, total = f32(1.0 / math.sqrt(size)), f32(-math.inf), f32(0)
    for p in range(seen):
        score = f32(0)
        for d in range(size):
            key = (keys + p * right + d) * lanes + lane
            score += x[(query + d) * lanes + lane] * x[key]
        scores[p] = score * scale
        most = max(most, scores[p])
    for p in range(seen):
        scores[p] = exp(scores[p] - most)
        total += scores[p]
    for p in range(seen):
        share, value = scores[p] / total, (values + p * right) * lanes + lane
        for o in range(wide):
            x[(out + o) * lanes + lane] += share * x[value + o * lanes]


@fast
def run(x, table, weights, scores, row, column, width, lanes, first, last):
    """All operations of one group at one pixel."""
    whole = first == 0 and last == lanes  # then the numbers of a part are one unbroken stretch
    for index in range(table.shape[0]):
        op, code = table[index], table[index, 0]
        if row % op[1] != op[2] or column % op[1] != op[3]:
            continue
        a, out, size = where(op, A, row, column), where(op, OUT, row, column), op[A + 1]
        b = -1 if op[B] < 0 else where(op, B, row, column)
        if code == LINEAR:
            if lanes == 1:
                linear(x, a, size, weights, op[4], out, op[OUT + 1], b)
            else:
                linear_lanes(x, a, size, weights, op[4], out, op[OUT + 1], b, lanes, first, last)
            continue
        if code == ATTEND:
            seen, right = row * width + column, op[B + 2]  # parts of keys begin at the first pixel
            for lane in range(first, last):
                attend(x, a, size, op[B], right, op[C], op[C + 1], seen, out, scores, lanes, lane)
            continue
        half, quarter = size // 2, size // 4
        count = half if code in (TANH_GATE, GATE) else quarter if code == LSTM else size
        rounds, n = (1, count * lanes) if whole else (count, last - first)
        for turn in range(rounds):
            at = turn * lanes + first
            y, i = out * lanes + at, a * lanes + at
            j, h = b * lanes + at, (a + half) * lanes + at
            if code == RELU:
                for q in range(n):
                    x[y + q] = max(x[i + q], f32(0))
            elif code == ELU:
                for q in range(n):
                    x[y + q] = elu(x[i + q])
            elif code == CONCAT_ELU:
                z = (out + size) * lanes + at
                for q in range(n):
                    x[z + q] = elu(-x[i + q])
                    x[y + q] = elu(x[i + q])
            elif code == TANH_GATE:
                for q in range(n):
                    x[y + q] = tanh(x[i + q]) * sigmoid(x[h + q])
            elif code == GATE:
                for q in range(n):
                    x[y + q] = x[j + q] + x[i + q] * sigmoid(x[h + q])
            elif code == LSTM:
                step, z = quarter * lanes, where(op, C, row, column) * lanes + at
                for q in range(n):
                    new = sigmoid(x[i + 2 * step + q]) * tanh(x[i + 3 * step + q])
                    new += sigmoid(x[i + step + q]) * x[j + q]
                    x[z + q] = new
                    x[y + q] = sigmoid(x[i + q]) * tanh(new)
            else:
                for q in range(n):
                    x[y + q] = x[i + q] + (x[j + q] if code == ADD else f32(0))


@fast
def play(arena, table, weights, scores, row, column, width, lanes):
    """One group at one pixel, for every image of the batch: arena (images, numbers * lanes)."""
    for image in range(arena.shape[0]):
        run(arena[image], table, weights, scores, row, column, width, lanes, 0, lanes)


@fast
def draw(logits, noise):
    """Inverse CDF, as `arlm.sampling.noise.draw`."""
    most, total = float(logits.max()), 0.0
    for v in range(logits.shape[0]):
        total += math.exp(float(logits[v]) - most)
    threshold, so_far, last = noise * total * (1 - 2.0**-50), 0.0, 0
    for v in range(logits.shape[0]):
        so_far += math.exp(float(logits[v]) - most)
        if so_far > threshold:
            return v
        if logits[v] > -math.inf:
            last = v
    return last


@fast
def roll(
    arena, tables, counts, weights, scores, row, sizes, values, first, last, noise, tokens, logits
):
    """A row of pixels, drawn one after the other, for the lanes from `first` to `last` of each image."""
    width, channels, groups, base, right, out, lanes = sizes
    for image in range(arena.shape[0]):
        x = arena[image]
        for column in range(width):
            for channel in range(channels):
                if channel < groups:
                    table = tables[channel, : counts[channel]]
                    run(x, table, weights, scores, row, column, width, lanes, first, last)
                t = column * channels + channel
                slot = base + column * right + channel
                for lane in range(first, min(last, tokens.shape[0])):  # lanes beyond are empty
                    n = image * lanes + lane
                    for v in range(values.shape[0]):
                        logits[n, t, v] = x[(out + v) * lanes + lane]
                    if tokens[n, t] < 0:
                        tokens[n, t] = draw(logits[n, t], noise[n, t])
                    x[slot * lanes + lane] = values[tokens[n, t]]
