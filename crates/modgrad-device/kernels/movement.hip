// Ops that move elements: each thread writes one.

template <class X, class Y> DEVICE void place(Y *to, X value) { store(to, to_float(value)); }
template <class X> DEVICE void place(X *to, X value) { *to = value; }

// The offset that `axes.first` gives to element `i`; divisions in 32 bits where they do.
template <class Size> DEVICE Index strided(const Axes &axes, Size i) {
    Index offset = 0;
    for (int axis = (int)axes.rank - 1; axis >= 0; axis--) {
        Size size = (Size)axes.size[axis], rest = i / size;
        offset += (Index)(i - rest * size) * axes.first[axis];
        i = rest;
    }
    return offset;
}

template <class X, class Y>
DEVICE void copy_strided(const X *x, Y *y, Axes axes, Index offset, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    offset += count <= 0x7fffffff ? strided<unsigned int>(axes, (unsigned int)i)
                                  : strided<Index>(axes, i);
    place(y + i, x[offset]);
}

// x, rows of `width`, into columns start… of y, rows of `whole`.
template <class X, class Y>
DEVICE void place_columns(const X *x, Y *y, Index width, Index whole, Index start, Index count) {
    Index i = thread_index();
    if (i < count) place(y + i / width * whole + start + i % width, x[i]);
}

#define MOVE(x, y)                                                                          \
    EXPORT(copy_strided_##x##_##y,                                                          \
           (const x *from, y *to, Axes axes, Index offset, Index count),                    \
           copy_strided(from, to, axes, offset, count))                                     \
    EXPORT(place_columns_##x##_##y,                                                         \
           (const x *from, y *to, Index width, Index whole, Index start, Index count),      \
           place_columns(from, to, width, whole, start, count))
MOVE(f32, f32)
MOVE(f32, bf16)
MOVE(bf16, f32)
MOVE(bf16, bf16)
MOVE(i32, i32)
MOVE(u8, u8)

// dy [outer, taken, inner] → dx [outer, size, inner]: zeros where nothing was taken.
EXPORT(slice_gradient,
       (const float *dy, float *dx, Index size, Index taken, Index start, Index step,
        Index inner, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index column = i % inner, row = i / inner, at = row % size - start;
    bool used = at >= 0 && at % step == 0 && at / step < taken;
    dx[i] = used ? dy[(row / size * taken + at / step) * inner + column] : 0.0f;
})

// y[b, t] = x[b, t − amount] over x [B, time, inner], zeros outside; |amount| ≤ time.
EXPORT(shift, (const float *x, float *y, Index amount, Index time, Index inner, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index source = i / inner % time - amount;
    y[i] = source >= 0 && source < time ? x[i - amount * inner] : 0.0f;
})

// x [outer, size, inner] → y [outer, taken, inner].
template <class I>
DEVICE void gather(const float *x, const I *indices, float *y, Index size, Index taken,
                   Index inner, Index count, unsigned long long *flag, int check) {
    Index i = thread_index();
    if (i >= count) return;
    Index column = i % inner, row = i / inner;
    Index index = checked_index(indices[row % taken], size, flag, check);
    y[i] = index < 0 ? 0.0f : x[(row / taken * size + index) * inner + column];
}
#define GATHER(i)                                                                           \
    EXPORT(gather_##i,                                                                      \
           (const float *x, const i *indices, float *y, Index size, Index taken,            \
            Index inner, Index count, unsigned long long *flag, int check),                 \
           gather(x, indices, y, size, taken, inner, count, flag, check))
GATHER(i32)
GATHER(u8)
