"""Operations on symbolic tensors, named as in PyTorch where PyTorch has them.

Axes: B batch, T time, H heads, D channels of a head, C channels, N rows; `...`
any leading axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from modgrad.program import Operand, Tensor, current_graph


def _apply(op: str, *inputs: Operand, **attributes: object) -> Tensor:
    return current_graph().apply(op, *inputs, **attributes)


def full(shape: Sequence[int], value: float) -> Tensor:
    """A tensor of which every element is `value`."""
    return _apply("constant", shape=list(shape), value=value)


def arange(length: int) -> Tensor:
    """0, 1, …, length − 1 as f32."""
    ones = full((1, length, 1), 1.0)
    return (linear_scan(ones, ones) - 1.0).reshape(length)


# ---- elementwise ------------------------------------------------------------


def relu(x: Operand) -> Tensor:
    """max(x, 0)."""
    return _apply("unary", x, function="relu")


def relu_squared(x: Operand) -> Tensor:
    """max(x, 0)² (Primer, arXiv 2109.08668)."""
    return _apply("unary", x, function="relu_squared")


def silu(x: Operand) -> Tensor:
    """x · sigmoid(x)."""
    return _apply("unary", x, function="silu")


def gelu(x: Operand) -> Tensor:
    """GELU in its tanh form (arXiv 1606.08415)."""
    return _apply("unary", x, function="gelu")


def softplus(x: Operand) -> Tensor:
    """log(1 + e^x)."""
    return _apply("unary", x, function="softplus")


def maximum(x: Operand, y: Operand) -> Tensor:
    """The larger of two tensors, elementwise."""
    return _apply("binary", x, y, function="maximum")


def minimum(x: Operand, y: Operand) -> Tensor:
    """The smaller of two tensors, elementwise."""
    return _apply("binary", x, y, function="minimum")


def one_hot_max(x: Operand, axis: int = -1) -> Tensor:
    """1 at the first largest element along an axis, 0 elsewhere; no gradient."""
    tensor = current_graph().read(x)
    return _apply("one_hot_max", tensor, axis=tensor._axis(axis))


def one_hot(indices: Operand, classes: int) -> Tensor:
    """indices i32 or u8 [...] → f32[..., classes]: 1 at the index, 0 elsewhere."""
    index = current_graph().read(indices).float()
    return relu(1.0 - (index.reshape(*index.shape, 1) - arange(classes)).abs())


def dropout(x: Operand, probability: float, stream: int) -> Tensor:
    """Zeroes elements with `probability` and scales up the rest.

    Each call of a model needs a `stream` of its own, so that masks differ.
    """
    if probability == 0.0:
        return current_graph().read(x)
    return _apply("dropout", x, probability=probability, stream=stream)


# ---- linear and normalisation -----------------------------------------------


def linear(x: Operand, weight: Operand, bias: Operand | None = None) -> Tensor:
    """x [..., k] · weight[n, k]ᵀ + bias[n]."""
    return _apply("linear", x, weight, *([] if bias is None else [bias]))


def matmul(
    a: Operand, b: Operand, *, transpose_a: bool = False, transpose_b: bool = False
) -> Tensor:
    """a [..., m, k] · b [k, n], or both with the same leading axes."""
    return _apply("mat_mul", a, b, transpose_a=transpose_a, transpose_b=transpose_b)


def rms_norm(x: Operand, weight: Operand, epsilon: float = 1e-5) -> Tensor:
    """x / rms(x) · weight over the last axis (arXiv 1910.07467)."""
    return _apply("rms_norm", x, weight, epsilon=epsilon)


def layer_norm(x: Operand, weight: Operand, bias: Operand, epsilon: float = 1e-5) -> Tensor:
    """Standardises the last axis, then scales and shifts (arXiv 1607.06450)."""
    return _apply("layer_norm", x, weight, bias, epsilon=epsilon)


# ---- gates, softmax, loss ---------------------------------------------------


def glu(x: Operand, activation: str = "sigmoid") -> Tensor:
    """x [..., 2C] → first half · activation(second half) (arXiv 2002.05202).

    `activation` is "sigmoid", "silu" (SwiGLU), "gelu" (GeGLU), "relu" or "identity".
    """
    return _apply("gated_linear_unit", x, activation=activation)


def softmax(x: Operand) -> Tensor:
    """Over the last axis."""
    return _apply("softmax", x)


def cross_entropy(logits: Operand, targets: Operand) -> Tensor:
    """−ln softmax(logits)[target] for each position, in nats.

    logits f32[..., C], targets u8 or i32[...] → f32[...].
    """
    return _apply("cross_entropy", logits, targets)


def logsumexp(logits: Operand) -> Tensor:
    """ln Σ e^x over the last axis."""
    peak = current_graph().read(logits).max(-1, keepdims=True)
    shifted = (current_graph().read(logits) - peak).exp().sum(-1)
    return shifted.log() + peak.reshape(*shifted.shape)


# ---- movement ---------------------------------------------------------------


def concat(tensors: Sequence[Operand], axis: int = -1) -> Tensor:
    """Joins tensors along one axis."""
    graph = current_graph()
    read = [graph.read(tensor) for tensor in tensors]
    at = axis % read[0].rank if read and axis < 0 else axis
    return graph.apply("concat", *read, axis=at)


def gather(x: Operand, indices: Operand, axis: int = 0) -> Tensor:
    """x with `axis` replaced by the axes of `indices` (numpy's take)."""
    return _apply("gather", x, indices, axis=axis)


def shift(x: Operand, amount: int = 1) -> Tensor:
    """y[:, t] = x[:, t − amount] over x [B, T, ...], zeros before the window."""
    return _apply("shift", x, amount=amount)


# ---- embeddings and contexts of bytes ---------------------------------------


def embedding(table: Operand, indices: Operand) -> Tensor:
    """Rows of table [N, C] by indices [...] → [..., C]."""
    return _apply("embedding", table, indices)


def embedding_bag(table: Operand, indices: Operand) -> Tensor:
    """Sums of S rows of table [N, C] by indices [..., S] → [..., C]."""
    return _apply("embedding_bag", table, indices)


def byte_context(tokens: Operand, length: int) -> Tensor:
    """tokens u8[B, T] → i32[B, T, length]: the last bytes, newest first, the
    position's own included; 256 before the window."""
    return _apply("byte_context", tokens, length=length)


def ngram_hash(tokens: Operand, orders: Sequence[int], rows: int, seed: int = 0) -> Tensor:
    """tokens u8[B, T] → i32[B, T, orders]: hashes of the last n bytes for each n.

    Slot k lies in k·rows … (k+1)·rows − 1, so that all share one table.
    """
    return _apply("ngram_hash", tokens, hash={"orders": list(orders), "rows": rows, "seed": seed})


def word_hash(tokens: Operand, kinds: Sequence[str], rows: int, seed: int = 0) -> Tensor:
    """tokens u8[B, T] → i32[B, T, kinds]: hashes of the words around each position.

    Slot k lies in k·rows … (k+1)·rows − 1, so that all share one table.
    """
    return _apply("word_hash", tokens, hash={"kinds": list(kinds), "rows": rows, "seed": seed})


def mix_rows(logits: Operand, gates: Operand, rows: Sequence[Operand]) -> Tensor:
    """logits [..., 256] + Σ_k gates[..., k] · row k of a counted memory.

    `rows` are base, entries, difference and multiple, as `modgrad.memory` gives them;
    gradients flow to logits and gates.
    """
    return _apply("mix_rows", logits, gates, *rows)


# ---- sequences --------------------------------------------------------------


def causal_attention(q: Operand, k: Operand, v: Operand, window: int | None = None) -> Tensor:
    """softmax(q·k/√D)·v over this and earlier positions, [B, T, H, D] each.

    With `window`, over the latest `window` positions only.
    """
    return _apply("causal_attention", q, k, v, window=window)


def rope(x: Operand, base: float = 10000.0, rotated: int | None = None) -> Tensor:
    """Rotary position embedding of x [B, T, H, D] (arXiv 2104.09864).

    Rotates the first `rotated` channels, all of them by default.
    """
    tensor = current_graph().read(x)
    channels = tensor.shape[-1] if rotated is None else rotated
    return _apply("rope", tensor, base=base, rotated=channels, inverse=False)


def causal_convolution(x: Operand, weight: Operand) -> Tensor:
    """x [B, T, C], weight [K, C] → y[t] = Σ_j weight[j] · x[t − j], per channel."""
    return _apply("causal_convolution", x, weight)


def linear_scan(a: Operand, b: Operand) -> Tensor:
    """h[t] = a[t] · h[t−1] + b[t] over [B, T, C], starting from 0."""
    return _apply("linear_scan", a, b)


def gated_recurrence(x: Operand, retention: Operand) -> Tensor:
    """minGRU (arXiv 2410.01201) with a gate on its output, as one op.

    x [B, T, 3C] holds retain, value and gate side by side, retention [C] → [B, T, C]:
    h[t] · silu(gate), where h[t] = a · h[t−1] + (1 − a) · value, starting from 0, and
    a = σ(retain + retention).
    """
    return _apply("gated_recurrence", x, retention)


# ---- Continuous Thought Machines --------------------------------------------


def synchronisation(
    start: Operand, states: Operand, left: Operand, right: Operand, retention: Operand
) -> Tensor:
    """How S pairs of neurons moved together, with states [B, T, N] → [B, T+1, S].

    With π_k the product of a pair's states, π_0 that of `start` [B, N] or [N]:
    α_k = r·α_{k−1} + π_k, β_k = r·β_{k−1} + 1, result α_k / √β_k
    (arXiv 2505.05522, section 3.4). `left`, `right` i32[S]; `retention` r [S].
    """
    graph = current_graph()
    first, rest = graph.read(start), graph.read(states)
    if first.rank == 1 and rest.rank == 3:
        first = first.reshape(1, -1).broadcast_to(rest.shape[0], rest.shape[2])
    return graph.apply("synchronisation", first, rest, left, right, retention)


def think(
    operands: Sequence[Operand],
    *,
    ticks: int,
    heads: int,
    hidden: int,
    depth: int = 1,
    projected: bool = False,
) -> tuple[Tensor, Tensor]:
    """All ticks of a Continuous Thought Machine in one op → (states [B, T, N], the
    trace after the last tick [B, N, M], newest last).

    `operands`, in order: keys, values [B, L, C], state [B, N], trace [B, N, M], left,
    right i32[S], retention [S], query weight [C, S] and bias [C], those of the synapse,
    level-1 weight [M, O, N] and bias [O, N], and unless `hidden` is 0, level-2 weight
    [hidden, 2, N] and bias [2, N]; O is 2·hidden, or 2. If `projected`, then weight
    [C, C] and bias [C] of a projection of the query, those of one of what attention
    read, and temperatures, one a level, that its weight and bias are divided by.
    A synapse of `depth` 1 has a
    weight [C+N, 2N] and bias [2N], norm weight and bias [N]; those of a deeper one,
    a U of `depth` widths, are what `modgrad.ctm.synapse` makes: of each block weight
    [inputs, width], bias, norm weight and bias [width], first, downwards and upwards,
    there with weight and bias [width] of the norm of the skip.

    A call may go on from another's `states[:, -1]` and trace; its synchronisation
    starts anew.
    """
    graph = current_graph()
    attributes = {"ticks": ticks, "heads": heads, "hidden": hidden, "depth": depth}
    attributes["projected"] = projected
    states, trace, *_ = graph.push("think", *operands, **attributes)
    return states, trace


def spatial_think(
    drive: Operand,
    start: Operand,
    synapse: Operand,
    neuron: Operand,
    neuron_bias: Operand,
    retention: Operand,
    reads: Operand | None = None,
    *,
    ticks: int,
    kept: int = 0,
) -> Tensor:
    """All ticks of a Continuous Thought Machine whose neurons stand on a lattice.

    With Y × X cells of C channels, a trace of M and R readings: drive [B, Y, X, 2C],
    start trace [M, C], synapse weight [2C, 2C], neuron weight [M, 2, C] and bias
    [2, C], retention [2C] → synchronisation [B, R, Y, X, 2C] after the ticks that
    `reads` i32[R] names, from 0 to `ticks`; without them, after `ticks`, and without
    a gradient. The equations stand in crates/modgrad-ctm/src/spatial.rs. The gradient
    goes back through the last `kept` ticks; 0 needs the least memory and allows none.
    """
    operands = (drive, start, synapse, neuron, neuron_bias, retention)
    given = () if reads is None else (reads,)
    return _apply("spatial_think", *operands, *given, ticks=ticks, kept=kept)


def walk(policy: Operand, start: Operand, steps: int) -> Tensor:
    """Follows a policy over a grid; no gradient.

    policy [B, Y, X, 5] scores up, down, left, right and stay at each cell; the walk
    begins at the largest of start [B, Y, X] → the scores it finds [B, steps, 5].
    """
    return _apply("walk", policy, start, steps=steps)
