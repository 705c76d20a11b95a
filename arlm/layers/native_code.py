"""The compiled half of `arlm.layers.native`: imports numba, compiles once and keeps the result on disk.

Numbers of a batch lie either image by image, or lane by lane: `lanes` images side by side for each number
of the arena, so that one instruction serves many of them. Number n of lane l is x[n * lanes + l]. A call
works on the lanes from `first` to `last`.
"""

from __future__ import annotations

import math

from numba import njit

from arlm.layers.tape import Code

LINEAR, RELU, ELU, CONCAT_ELU = map(int, (Code.LINEAR, Code.RELU, Code.ELU, Code.CONCAT_ELU))
TANH_GATE, GATE, LSTM = int(Code.TANH_GATE), int(Code.GATE), int(Code.LSTM)
ADD, COPY, ATTEND = int(Code.ADD), int(Code.COPY), int(Code.ATTEND)
A, B, C, OUT = 5, 10, 15, 20  # where the parts of an operation begin in its row of the table
fast = njit(fastmath={"contract", "reassoc", "nsz", "arcp"}, nogil=True, cache=True)


@fast
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + math.exp(-x))


@fast
def elu(x):
    """x if positive, else exp(x) - 1."""
    return x if x > 0 else math.expm1(x)


@fast
def where(op, part, row, column):
    """First number of a part at a pixel."""
    return op[part] + row * op[part + 3] + column // op[part + 4] * op[part + 2]


@fast
def linear(x, source, size, weights, begin, place, width, base):
    """place = source @ weights, plus what stands at `base`; one image, four inputs at a time."""
    y = x[place : place + width]
    for o in range(width):
        y[o] = 0.0 if base < 0 else x[base + o]
    k = 0
    while k + 4 <= size:
        a, b, c, d = x[source + k], x[source + k + 1], x[source + k + 2], x[source + k + 3]
        w = weights[begin + k * width : begin + (k + 4) * width]
        for o in range(width):
            y[o] += a * w[o] + b * w[width + o] + c * w[2 * width + o] + d * w[3 * width + o]
        k += 4
    while k < size:
        a = x[source + k]
        w = weights[begin + k * width : begin + (k + 1) * width]
        for o in range(width):
            y[o] += a * w[o]
        k += 1


@fast
def linear_lanes(x, source, size, weights, begin, place, width, base, lanes, first, last):
    """The same for some lanes at a time."""
    n = last - first
    for o in range(width):
        here = (place + o) * lanes + first
        y = x[here : here + n]
        if base < 0:
            for q in range(n):
                y[q] = 0.0
        elif base != place:
            for q in range(n):
                y[q] = x[(base + o) * lanes + first + q]
        k = 0
        while k + 4 <= size:
            at = (source + k) * lanes + first
            a, b = x[at : at + n], x[at + lanes : at + lanes + n]
            c, d = x[at + 2 * lanes : at + 2 * lanes + n], x[at + 3 * lanes : at + 3 * lanes + n]
            w = begin + k * width + o
            p, r = weights[w], weights[w + width]
            s, t = weights[w + 2 * width], weights[w + 3 * width]
            for q in range(n):
                y[q] += a[q] * p + b[q] * r + c[q] * s + d[q] * t
            k += 4
        while k < size:
            at = (source + k) * lanes + first
            p = weights[begin + k * width + o]
            for q in range(n):
                y[q] += x[at + q] * p
            k += 1


@fast
def attend(x, query, size, keys, right, values, wide, seen, out, scores, lanes, lane):
    """softmax(q k^T / sqrt(d)) v over the first `seen` pixels, one lane; zeros where there are none."""
    for o in range(wide):
        x[(out + o) * lanes + lane] = 0.0
    if seen == 0:
        return
    scale, most = 1.0 / math.sqrt(size), -math.inf
    for p in range(seen):
        score = 0.0
        for d in range(size):
            key = (keys + p * right + d) * lanes + lane
            score += x[(query + d) * lanes + lane] * x[key]
        scores[p] = score * scale
        most = max(most, scores[p])
    total = 0.0
    for p in range(seen):
        scores[p] = math.exp(scores[p] - most)
        total += scores[p]
    for p in range(seen):
        share = scores[p] / total
        value = values + p * right
        if lanes == 1:
            for o in range(wide):
                x[out + o] += share * x[value + o]
        else:
            for o in range(wide):
                x[(out + o) * lanes + lane] += share * x[(value + o) * lanes + lane]


@fast
def run(x, table, weights, scores, row, column, width, lanes, first, last):
    """All operations of one group at one pixel."""
    whole = first == 0 and last == lanes  # then the numbers of a part are one unbroken stretch
    for index in range(table.shape[0]):
        op = table[index]
        code = op[0]
        if row % op[1] != op[2] or column % op[1] != op[3]:
            continue
        a, out = where(op, A, row, column), where(op, OUT, row, column)
        size = op[A + 1]
        b = -1 if op[B] < 0 else where(op, B, row, column)
        if code == LINEAR:
            if lanes == 1:
                linear(x, a, size, weights, op[4], out, op[OUT + 1], b)
            else:
                linear_lanes(x, a, size, weights, op[4], out, op[OUT + 1], b, lanes, first, last)
            continue
        if code == ATTEND:
            # Keys and values are those of all pixels so far: their parts begin at the image's first.
            seen, right = row * width + column, op[B + 2]
            for lane in range(first, last):
                attend(x, a, size, op[B], right, op[C], op[C + 1], seen, out, scores, lanes, lane)
            continue
        half = size // 2
        quarter = size // 4
        count = half if code in (TANH_GATE, GATE) else quarter if code == LSTM else size
        rounds, n = (1, count * lanes) if whole else (count, last - first)
        for turn in range(rounds):
            at = turn * lanes + first
            y, i = out * lanes + at, a * lanes + at
            j, h = b * lanes + at, (a + half) * lanes + at
            if code == RELU:
                for q in range(n):
                    x[y + q] = max(x[i + q], 0.0)
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
                    x[y + q] = math.tanh(x[i + q]) * sigmoid(x[h + q])
            elif code == GATE:
                for q in range(n):
                    x[y + q] = x[j + q] + x[i + q] * sigmoid(x[h + q])
            elif code == LSTM:
                step, z = quarter * lanes, where(op, C, row, column) * lanes + at
                for q in range(n):
                    new = sigmoid(x[i + 2 * step + q]) * math.tanh(x[i + 3 * step + q])
                    new += sigmoid(x[i + step + q]) * x[j + q]
                    x[z + q] = new
                    x[y + q] = sigmoid(x[i + q]) * math.tanh(new)
            elif code == ADD:
                for q in range(n):
                    x[y + q] = x[i + q] + x[j + q]
            elif code == COPY:
                for q in range(n):
                    x[y + q] = x[i + q]


@fast
def play(arena, table, weights, scores, row, column, width, lanes):
    """One group at one pixel, for every image of the batch: arena (images, numbers * lanes)."""
    for image in range(arena.shape[0]):
        run(arena[image], table, weights, scores, row, column, width, lanes, 0, lanes)


@fast
def draw(logits, noise):
    """Inverse CDF, as `arlm.sampling.noise.draw`."""
    most, total = -math.inf, 0.0
    for v in range(logits.shape[0]):
        most = max(most, logits[v])
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
                for lane in range(first, last):
                    n = image * lanes + lane
                    for v in range(values.shape[0]):
                        logits[n, t, v] = x[(out + v) * lanes + lane]
                    if tokens[n, t] < 0:
                        tokens[n, t] = draw(logits[n, t], noise[n, t])
                    x[slot * lanes + lane] = values[tokens[n, t]]
