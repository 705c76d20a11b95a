"""The compiled part of `arlm.programs.native_backend`: numba compiles it once and caches the result on disk.

x is the memory of one image (`lanes` = 1), or of several images as SIMD lanes: number n of lane l is
x[n * lanes + l]. Functions with `first` and `last` compute lanes first ... last - 1 only, so that threads can
divide the lanes.
"""

from __future__ import annotations

import math

from arlm.programs.native_math import (
    SIMD_WIDTH,
    elu,
    exp,
    f32,
    fast,
    product_of_four,
    product_of_one,
    product_of_two_fours,
    product_of_two_ones,
    sigmoid,
    tanh,
)
from arlm.programs.native_rules import apply_rules

LINEAR, RELU, ELU, CONCAT_ELU, TANH_GATE, GATE, LSTM, ADD, COPY, ATTEND = range(10)
A, B, C, OUT = 5, 10, 15, 20  # first column of each slice in an operation's row of the table


@fast
def address(op, part, row, column):
    """First number of a slice at a pixel; `part` is A, B, C or OUT."""
    return op[part] + row * op[part + 3] + column // op[part + 4] * op[part + 2]


@fast
def linear(x, source, size, weights, begin, target, width, base):
    """target = source @ weights, plus the slice at `base` unless it is -1; for one image."""
    y = x[target : target + width]
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
def linear_lanes(x, source, size, weights, begin, target, width, base, lanes, first, last):
    """`linear` on lanes, SIMD_WIDTH or twice as many at a time."""
    lane = first
    while lane < last:
        two = lane + 2 * SIMD_WIDTH <= last
        a, y = source * lanes + lane, target * lanes + lane
        o = 0
        while o < width:
            z = (base + o) * lanes + lane if base >= 0 else -1
            w, at = begin + o * size, y + o * lanes  # as `arlm.programs.native_backend` packs them
            if o + 4 <= width and two:
                product_of_two_fours(x, weights, a, size, w, 4, z, at, lanes)
            elif o + 4 <= width:
                product_of_four(x, weights, a, size, w, 4, z, at, lanes)
            elif two:
                product_of_two_ones(x, weights, a, size, w, 1, z, at, lanes)
            else:
                product_of_one(x, weights, a, size, w, 1, z, at, lanes)
            o += 4 if o + 4 <= width else 1
        lane += 2 * SIMD_WIDTH if two else SIMD_WIDTH


@fast
def attend(x, query, size, keys, right, values, value_size, count, out, scores, lanes, lane):
    """softmax(q k^T / sqrt(d)) v over the first `count` pixels, for one lane; zeros if count is 0."""
    for o in range(value_size):
        x[(out + o) * lanes + lane] = f32(0)
    if count == 0:
        return
    scale, highest, total = f32(1.0 / math.sqrt(size)), f32(-math.inf), f32(0)
    for p in range(count):
        score = f32(0)
        for d in range(size):
            key = (keys + p * right + d) * lanes + lane
            score += x[(query + d) * lanes + lane] * x[key]
        scores[p] = score * scale
        highest = max(highest, scores[p])
    for p in range(count):
        scores[p] = exp(scores[p] - highest)
        total += scores[p]
    for p in range(count):
        share, value = scores[p] / total, (values + p * right) * lanes + lane
        for o in range(value_size):
            x[(out + o) * lanes + lane] += share * x[value + o * lanes]


@fast
def run(x, table, weights, scores, row, column, width, lanes, first, last):
    """Run a table of operations at one pixel."""
    whole = first == 0 and last == lanes  # all lanes: the numbers of a slice are contiguous
    for index in range(table.shape[0]):
        op, code = table[index], table[index, 0]
        if row % op[1] != op[2] or column % op[1] != op[3]:
            continue
        a, out, size = address(op, A, row, column), address(op, OUT, row, column), op[A + 1]
        b = -1 if op[B] < 0 else address(op, B, row, column)
        if code == LINEAR:
            if lanes == 1:
                linear(x, a, size, weights, op[4], out, op[OUT + 1], b)
            else:
                linear_lanes(x, a, size, weights, op[4], out, op[OUT + 1], b, lanes, first, last)
            continue
        if code == ATTEND:
            earlier, right = row * width + column, op[B + 2]  # keys and values start at pixel 0
            for lane in range(first, last):
                values, value_size = op[C], op[C + 1]
                attend(
                    x, a, size, op[B], right, values, value_size, earlier, out, scores, lanes, lane
                )
            continue
        half, quarter = size // 2, size // 4
        count = half if code in (TANH_GATE, GATE) else quarter if code == LSTM else size
        repeats, n = (1, count * lanes) if whole else (count, last - first)
        for repeat in range(repeats):
            at = repeat * lanes + first
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
                step, z = quarter * lanes, address(op, C, row, column) * lanes + at
                for q in range(n):
                    new = sigmoid(x[i + 2 * step + q]) * tanh(x[i + 3 * step + q])
                    new += sigmoid(x[i + step + q]) * x[j + q]
                    x[z + q] = new
                    x[y + q] = sigmoid(x[i + q]) * tanh(new)
            else:
                for q in range(n):
                    x[y + q] = x[i + q] + (x[j + q] if code == ADD else f32(0))


@fast
def run_stages(x, table, stages, weights, scores, row, width, lanes, first, last):
    """Run the stages of a new image row."""
    for stage in range(stages.shape[0]):
        begin, end, scan, after = stages[stage]
        if row < after:
            continue
        if scan:
            for column in range(width - 1, -1, -1):
                operations = table[begin:end]
                run(x, operations, weights, scores, row, column, width, lanes, first, last)
            continue
        for k in range(begin, end):
            for column in range(width):
                operation = table[k : k + 1]
                run(x, operation, weights, scores, row, column, width, lanes, first, last)


@fast
def start_row(workspace, table, stages, weights, scores, row, width, lanes):
    """Run the stages of a new image row; workspace (images, numbers * lanes)."""
    for image in range(workspace.shape[0]):
        run_stages(workspace[image], table, stages, weights, scores, row, width, lanes, 0, lanes)


@fast
def run_pixel(workspace, table, weights, scores, row, column, width, lanes):
    """Run a table of operations at one pixel; workspace (images, numbers * lanes)."""
    for image in range(workspace.shape[0]):
        run(workspace[image], table, weights, scores, row, column, width, lanes, 0, lanes)


@fast
def draw(logits, noise):
    """Inverse CDF, as `arlm.sampling.noise.draw`."""
    highest, total = float(logits.max()), 0.0
    for v in range(logits.shape[0]):
        total += math.exp(float(logits[v]) - highest)
    threshold, cumulative, last = noise * total * (1 - 2.0**-50), 0.0, 0
    for v in range(logits.shape[0]):
        cumulative += math.exp(float(logits[v]) - highest)
        if cumulative > threshold:
            return v
        if logits[v] > -math.inf:
            last = v
    return last


@fast
def sample_row(
    workspace,
    tables,
    counts,
    stages,
    weights,
    scores,
    row,
    sizes,
    values,
    part,
    noise,
    tokens,
    logits,
    rules,
    shaped,
    heap,
):
    """Draw a row of pixels one after the other.

    The last of `tables` holds the stages, which are skipped in row 0: there they have run already. `part` is
    (lanes, first, last). `shaped` and `heap` hold V numbers each, for the rules.
    """
    width, channels, groups, base, right, out = sizes
    lanes, first, last = part
    for image in range(workspace.shape[0]):
        x = workspace[image]
        if row:
            run_stages(x, tables[-1], stages, weights, scores, row, width, lanes, first, last)
        for column in range(width):
            for channel in range(channels):
                if channel < groups:
                    operations = tables[channel, : counts[channel]]
                    run(x, operations, weights, scores, row, column, width, lanes, first, last)
                t = column * channels + channel
                slot = base + column * right + channel
                for lane in range(
                    first, min(last, tokens.shape[0])
                ):  # the lanes after that are padding
                    n = image * lanes + lane
                    for v in range(values.shape[0]):
                        logits[n, t, v] = x[(out + v) * lanes + lane]
                    if tokens[n, t] < 0:
                        shaped[:] = logits[n, t]
                        apply_rules(shaped, rules, heap)
                        tokens[n, t] = draw(shaped, noise[n, t])
                    x[slot * lanes + lane] = values[tokens[n, t]]
