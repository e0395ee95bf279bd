// Normalisation of rows; one block a row.

template <class X, class Y>
DEVICE void rms_norm(const X *x, const float *weight, Y *y, float *rstd, Index width,
                     float epsilon) {
    Index row = blockIdx.x;
    x += row * width;
    y += row * width;
    float squares = 0.0f;
    for (Index i = threadIdx.x; i < width; i += BLOCK) squares += to_float(x[i]) * to_float(x[i]);
    float scale = 1.0f / sqrtf(block_sum(squares) / (float)width + epsilon);
    for (Index i = threadIdx.x; i < width; i += BLOCK)
        store(y + i, to_float(x[i]) * scale * weight[i]);
    if (threadIdx.x == 0) rstd[row] = scale;
}
#define RMS_NORM(x, y)                                                                  \
    EXPORT(rms_norm_##x##_##y,                                                          \
           (const x *from, const float *weight, y *to, float *rstd, Index width,        \
            float epsilon),                                                             \
           rms_norm(from, weight, to, rstd, width, epsilon))
RMS_NORM(f32, f32)
RMS_NORM(f32, bf16)
RMS_NORM(bf16, f32)
RMS_NORM(bf16, bf16)

template <class X, class D, class G>
DEVICE void rms_norm_gradient(const X *x, const float *weight, const float *rstd, const D *dy,
                              G *dx, Index width) {
    Index row = blockIdx.x;
    x += row * width;
    dy += row * width;
    dx += row * width;
    float product = 0.0f;
    for (Index i = threadIdx.x; i < width; i += BLOCK)
        product += to_float(x[i]) * to_float(dy[i]) * weight[i];
    float scale = rstd[row];
    float along = block_sum(product) * scale * scale / (float)width;
    for (Index i = threadIdx.x; i < width; i += BLOCK)
        store(dx + i, scale * (weight[i] * to_float(dy[i]) - to_float(x[i]) * along));
}
#define RMS_NORM_GRADIENT(x, d, g)                                                         \
    EXPORT(rms_norm_gradient_##x##_##d##_##g,                                              \
           (const x *at, const float *weight, const float *rstd, const d *dy, g *dx,       \
            Index width),                                                                  \
           rms_norm_gradient(at, weight, rstd, dy, dx, width))
RMS_NORM_GRADIENT(f32, f32, f32)
RMS_NORM_GRADIENT(f32, f32, bf16)
RMS_NORM_GRADIENT(f32, bf16, f32)
RMS_NORM_GRADIENT(f32, bf16, bf16)
RMS_NORM_GRADIENT(bf16, f32, f32)
RMS_NORM_GRADIENT(bf16, f32, bf16)
RMS_NORM_GRADIENT(bf16, bf16, f32)
RMS_NORM_GRADIENT(bf16, bf16, bf16)

// The terms of dweight: blockIdx.y is a chunk of `length` rows, a thread a column;
// parts [chunks, width], which reductions.hip adds up.
template <class X, class D>
DEVICE void rms_norm_weight(const X *x, const float *rstd, const D *dy, float *parts, Index rows,
                            Index width, Index length) {
    Index column = thread_index();
    if (column >= width) return;
    Index first = (Index)blockIdx.y * length;
    Index end = first + length < rows ? first + length : rows;
    float total = 0.0f;
    for (Index row = first; row < end; row++)
        total += to_float(dy[row * width + column]) * to_float(x[row * width + column]) * rstd[row];
    parts[(Index)blockIdx.y * width + column] = total;
}
#define RMS_NORM_WEIGHT(x, d)                                                               \
    EXPORT(rms_norm_weight_##x##_##d,                                                       \
           (const x *at, const float *rstd, const d *dy, float *parts, Index rows,          \
            Index width, Index length),                                                     \
           rms_norm_weight(at, rstd, dy, parts, rows, width, length))
RMS_NORM_WEIGHT(f32, f32)
RMS_NORM_WEIGHT(f32, bf16)
RMS_NORM_WEIGHT(bf16, f32)
RMS_NORM_WEIGHT(bf16, bf16)
