// Gradients of the few rows of a table that a step touches. `keys` and `positions` are the
// indices of these rows in order (kernels/order.hip); the first of equal keys stands for its
// row, the others do nothing.

DEVICE bool is_first(const int *keys, Index i) { return i == 0 || keys[i] != keys[i - 1]; }

// Indices as they are kept: i32, with the row of the gradient that goes with each.
template <class I>
DEVICE void sparse_keep(const I *indices, int *kept, int *sources, Index rows, Index first,
                        Index bag, Index count, unsigned long long *flag, int check) {
    Index i = thread_index();
    if (i >= count) return;
    Index row = checked_index(indices[i], rows, flag, check);
    kept[i] = row < 0 ? 0 : (int)row;
    sources[i] = (int)(first + i / bag);
}
#define SPARSE_KEEP(i)                                                                      \
    EXPORT(sparse_keep_##i,                                                                 \
           (const i *indices, int *kept, int *sources, Index rows, Index first, Index bag,  \
            Index count, unsigned long long *flag, int check),                              \
           sparse_keep(indices, kept, sources, rows, first, bag, count, flag, check))
SPARSE_KEEP(i32)
SPARSE_KEEP(u8)

// sums [count, width]: at the first of a row's positions the sum of its gradients, else 0.
EXPORT(sparse_sum,
       (const int *keys, const int *positions, const int *sources, const float *gradients,
        float *sums, Index width, Index keys_count, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index at = i / width, column = i % width;
    float total = 0.0f;
    if (is_first(keys, at))
        for (Index k = at; k < keys_count && keys[k] == keys[at]; k++)
            total += gradients[(Index)sources[positions[k]] * width + column];
    sums[i] = total;
})

// `modgrad_compute::optimiser::RowwiseAdagrad`.
struct RowwiseRates {
    float learning_rate, epsilon, weight_decay, gradient_scale;
};

// How far each row moves: rates [count], at the first of its positions.
EXPORT(rowwise_rates,
       (const int *keys, const float *sums, float *state, float *rates, const float *clip,
        Index width, RowwiseRates rule, Index count), {
    Index at = thread_index();
    float squares = 0.0f, scale = clipped(rule.gradient_scale, clip);
    if (at >= count || !is_first(keys, at) || refused(clip)) return;
    for (Index i = at * width; i < (at + 1) * width; i++) squares += sums[i] * sums[i];
    float seen = state[keys[at]] + squares * scale * scale / (float)width;
    state[keys[at]] = seen;
    rates[at] = rule.learning_rate * scale / (sqrtf(seen) + rule.epsilon);
})

EXPORT(rowwise_adagrad,
       (const int *keys, const float *sums, const float *rates, float *table,
        const float *clip, Index width, RowwiseRates rule, Index count), {
    Index i = thread_index(), at = i / width;
    if (i >= count || !is_first(keys, at) || refused(clip)) return;
    float keep = 1.0f - rule.learning_rate * rule.weight_decay;
    table += keys[at] * width + i % width;
    *table = *table * keep - rates[at] * sums[i];
})
