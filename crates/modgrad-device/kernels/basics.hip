// What buffers need: filling, adding, rounding.

EXPORT(fill, (float *to, float value, Index count), {
    Index i = thread_index();
    if (i < count) to[i] = value;
})

// to = from, or to += from.
template <class X> DEVICE void accumulate(const X *from, float *to, int add, Index count) {
    Index i = thread_index();
    if (i < count) to[i] = (add ? to[i] : 0.0f) + to_float(from[i]);
}
EXPORT(accumulate_f32, (const float *from, float *to, int add, Index count),
       accumulate(from, to, add, count))
EXPORT(accumulate_bf16, (const bf16 *from, float *to, int add, Index count),
       accumulate(from, to, add, count))

EXPORT(narrow, (const float *from, bf16 *to, Index count), {
    Index i = thread_index();
    if (i < count) to[i] = to_bf16(from[i]);
})

// y += bias on every row of `columns`.
template <class Y> DEVICE void add_bias(Y *y, const float *bias, Index columns, Index count) {
    Index i = thread_index();
    if (i < count) store(y + i, to_float(y[i]) + bias[i % columns]);
}
EXPORT(add_bias_f32, (float *y, const float *bias, Index columns, Index count),
       add_bias(y, bias, columns, count))
EXPORT(add_bias_bf16, (bf16 *y, const float *bias, Index columns, Index count),
       add_bias(y, bias, columns, count))
