// Which elements of an axis are the largest: x [outer, axis, inner].

// One thread for each (outer, inner): dx = dy over how many reach the maximum.
EXPORT(maximum_gradient,
       (const float *x, const float *y, const float *dy, float *dx, Index axis, Index inner,
        Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index start = i / inner * axis * inner + i % inner;
    float most = y[i], ties = 0.0f;
    for (Index k = 0; k < axis; k++) ties += x[start + k * inner] == most ? 1.0f : 0.0f;
    float share = dy[i] / ties;
    for (Index k = 0; k < axis; k++)
        dx[start + k * inner] = x[start + k * inner] == most ? share : 0.0f;
})

// The same for long rows, inner = 1: one block a row. A block's ties are exact: whole numbers.
EXPORT(maximum_gradient_rows,
       (const float *x, const float *y, const float *dy, float *dx, Index axis), {
    Index row = blockIdx.x, start = row * axis;
    float most = y[row], ties = 0.0f;
    for (Index k = threadIdx.x; k < axis; k += BLOCK) ties += x[start + k] == most ? 1.0f : 0.0f;
    float share = dy[row] / block_sum(ties);
    for (Index k = threadIdx.x; k < axis; k += BLOCK)
        dx[start + k] = x[start + k] == most ? share : 0.0f;
})

// Whether a later element takes the place of the largest so far; the first NaN does.
DEVICE bool exceeds(float candidate, float largest) {
    return candidate > largest || (candidate != candidate && largest == largest);
}

EXPORT(one_hot_max, (const float *x, float *y, Index axis, Index inner, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index start = i / inner * axis * inner + i % inner, best = 0;
    for (Index k = 1; k < axis; k++)
        if (exceeds(x[start + k * inner], x[start + best * inner])) best = k;
    for (Index k = 0; k < axis; k++) y[start + k * inner] = k == best ? 1.0f : 0.0f;
})

struct Candidate {
    float value;
    Index place; // −1 for none
};

struct First {
    DEVICE Candidate operator()(Candidate x, Candidate y) const {
        if (x.place < 0 || y.place < 0) return x.place < 0 ? y : x;
        if (exceeds(y.value, x.value)) return y;
        if (exceeds(x.value, y.value)) return x;
        return y.place < x.place ? y : x;
    }
};

EXPORT(one_hot_max_rows, (const float *x, float *y, Index axis), {
    Index start = (Index)blockIdx.x * axis;
    Candidate best;
    best.value = 0.0f;
    best.place = -1;
    for (Index k = threadIdx.x; k < axis; k += BLOCK)
        if (best.place < 0 || exceeds(x[start + k], best.value)) {
            best.value = x[start + k];
            best.place = k;
        }
    best = block_fold(best, First());
    for (Index k = threadIdx.x; k < axis; k += BLOCK) y[start + k] = k == best.place ? 1.0f : 0.0f;
})
