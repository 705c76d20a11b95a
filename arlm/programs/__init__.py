"""A decoding step recorded as a list of operations on a workspace, and the backends that run it.

A network that samples pixel by pixel in Python would spend most of its time in the interpreter. Instead it
records its decoding step once, as a program, when sampling starts:

    network.build_program(program)          weights are masked and folded here, once
        |
        v
    Program   operations, in order          LINEAR  slice a -> slice out, with a weight
              (one list a channel group,    RELU    slice a -> slice out
              and row stages, run when      LSTM    gates, cell -> hidden, cell
              a new image row begins)       ...
        |
        v
    workspace (B, N): one flat row of numbers for each image of the batch
        [ image rows | feature buffers: a few rows of features | scratch of the current pixel | logits ]
              ^ the sampler writes each drawn token here; every operation reads and writes slices
        |
        v
    backend   TorchBackend: one bound torch call for each operation, on any device
              NativeBackend: machine code by numba, float32 on a CPU, the same results to rounding

Features of earlier pixels are not recomputed: feature buffers keep those that later pixels read.
At present only pixel networks use programs.

References:
    | Fast Generation for Convolutional Autoregressive Models (Ramachandran et al., 2017)
    | https://arxiv.org/abs/1704.06001
"""
