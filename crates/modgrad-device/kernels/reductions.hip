// Reductions of one axis of [outer, axis, inner].

// One block for each of the `outer` rows of `axis` neighbours (inner is 1): long rows.
template <bool MAXIMUM, class X>
DEVICE void reduce_rows(const X *x, float *y, Index axis, float scale) {
    const X *row = x + (Index)blockIdx.x * axis;
    float value = MAXIMUM ? -infinity() : 0.0f;
    for (Index i = threadIdx.x; i < axis; i += BLOCK)
        value = MAXIMUM ? Larger()(to_float(row[i]), value) : value + to_float(row[i]);
    value = MAXIMUM ? block_maximum(value) : block_sum(value);
    if (threadIdx.x == 0) y[blockIdx.x] = value * scale;
}

// One thread for each (outer, inner); blockIdx.y is one of the chunks of `length` that the
// axis is cut into: y [outer, chunks, inner]. Neighbouring threads read neighbours.
template <bool MAXIMUM, class X>
DEVICE void reduce_columns(const X *x, float *y, Index outer, Index axis, Index inner,
                           Index length, float scale) {
    Index i = thread_index();
    if (i >= outer * inner) return;
    Index row = i / inner, column = i % inner, chunk = blockIdx.y, chunks = gridDim.y;
    Index end = (chunk + 1) * length < axis ? (chunk + 1) * length : axis;
    float value = MAXIMUM ? -infinity() : 0.0f;
    for (Index k = chunk * length; k < end; k++) {
        float element = to_float(x[(row * axis + k) * inner + column]);
        value = MAXIMUM ? Larger()(element, value) : value + element;
    }
    y[(row * chunks + chunk) * inner + column] = value * scale;
}

#define REDUCE(kind, maximum, x)                                                            \
    EXPORT(kind##_rows_##x, (const x *from, float *y, Index axis, float scale),             \
           reduce_rows<maximum>(from, y, axis, scale))                                      \
    EXPORT(kind##_columns_##x,                                                              \
           (const x *from, float *y, Index outer, Index axis, Index inner, Index length,    \
            float scale),                                                                   \
           reduce_columns<maximum>(from, y, outer, axis, inner, length, scale))
REDUCE(sum, false, f32)
REDUCE(sum, false, bf16)
REDUCE(maximum, true, f32)
REDUCE(maximum, true, bf16)

// Σ x² in f64: each block leaves one term.
EXPORT(sum_of_squares, (const float *x, double *parts, Index count), {
    double total = 0.0;
    for (Index i = thread_index(); i < count; i += (Index)gridDim.x * BLOCK)
        total += (double)x[i] * (double)x[i];
    total = block_sum(total);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
})

// The norm of `mean` times a gradient from the terms of its squares, and the factor that
// brings it to `limit` at most: `modgrad_graph::backend::Clip`. One block.
EXPORT(clip,
       (const double *squares, double *norm, float *factor, float mean, float limit,
        Index terms), {
    double total = 0.0;
    for (Index i = threadIdx.x; i < terms; i += BLOCK) total += squares[i];
    total = block_sum(total);
    if (threadIdx.x != 0) return;
    double found = sqrt(total) * (double)mean;
    *norm = found;
    float kept = found > (double)limit ? (float)((double)limit / found) : 1.0f;
    *factor = kept + (float)(found - found); // NaN where it is NaN or infinite
})
