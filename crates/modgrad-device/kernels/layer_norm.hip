// Normalisation by mean and deviation; one block a row.

template <class X, class Y>
DEVICE void layer_norm(const X *x, const float *weight, const float *bias, Y *y, float *mean,
                       float *rstd, Index width, float epsilon) {
    Index row = blockIdx.x;
    x += row * width;
    y += row * width;
    float sum = 0.0f;
    for (Index i = threadIdx.x; i < width; i += BLOCK) sum += to_float(x[i]);
    float middle = block_sum(sum) / (float)width;
    float squares = 0.0f;
    for (Index i = threadIdx.x; i < width; i += BLOCK) {
        float off = to_float(x[i]) - middle;
        squares += off * off;
    }
    float scale = 1.0f / sqrtf(block_sum(squares) / (float)width + epsilon);
    for (Index i = threadIdx.x; i < width; i += BLOCK)
        store(y + i, (to_float(x[i]) - middle) * scale * weight[i] + bias[i]);
    if (threadIdx.x == 0) {
        mean[row] = middle;
        rstd[row] = scale;
    }
}
#define LAYER_NORM(x, y)                                                                    \
    EXPORT(layer_norm_##x##_##y,                                                            \
           (const x *from, const float *weight, const float *bias, y *to, float *mean,      \
            float *rstd, Index width, float epsilon),                                       \
           layer_norm(from, weight, bias, to, mean, rstd, width, epsilon))
LAYER_NORM(f32, f32)
LAYER_NORM(f32, bf16)
LAYER_NORM(bf16, f32)
LAYER_NORM(bf16, bf16)

// With n = (x − mean)·rstd and g = dy·weight: dx = rstd·(g − mean(g) − n·mean(g·n)).
template <class X, class D, class G>
DEVICE void layer_norm_gradient(const X *x, const float *weight, const float *mean,
                                const float *rstd, const D *dy, G *dx, Index width) {
    Index row = blockIdx.x;
    x += row * width;
    dy += row * width;
    dx += row * width;
    float middle = mean[row], scale = rstd[row], sum = 0.0f, product = 0.0f;
    for (Index i = threadIdx.x; i < width; i += BLOCK) {
        float g = to_float(dy[i]) * weight[i];
        sum += g;
        product += g * (to_float(x[i]) - middle) * scale;
    }
    float average = block_sum(sum) / (float)width, along = block_sum(product) / (float)width;
    for (Index i = threadIdx.x; i < width; i += BLOCK) {
        float n = (to_float(x[i]) - middle) * scale;
        store(dx + i, scale * (to_float(dy[i]) * weight[i] - average - n * along));
    }
}
#define LAYER_NORM_GRADIENT(x, d, g)                                                        \
    EXPORT(layer_norm_gradient_##x##_##d##_##g,                                             \
           (const x *at, const float *weight, const float *mean, const float *rstd,         \
            const d *dy, g *dx, Index width),                                               \
           layer_norm_gradient(at, weight, mean, rstd, dy, dx, width))
LAYER_NORM_GRADIENT(f32, f32, f32)
LAYER_NORM_GRADIENT(f32, f32, bf16)
LAYER_NORM_GRADIENT(f32, bf16, f32)
LAYER_NORM_GRADIENT(f32, bf16, bf16)
LAYER_NORM_GRADIENT(bf16, f32, f32)
LAYER_NORM_GRADIENT(bf16, f32, bf16)
LAYER_NORM_GRADIENT(bf16, bf16, f32)
LAYER_NORM_GRADIENT(bf16, bf16, bf16)

// The terms of dweight and dbias: blockIdx.y is a chunk of `length` rows, a thread a column;
// both [chunks, width], which reductions.hip adds up.
template <class X, class D>
DEVICE void layer_norm_weights(const X *x, const float *mean, const float *rstd, const D *dy,
                               float *weights, float *biases, Index rows, Index width,
                               Index length) {
    Index column = thread_index();
    if (column >= width) return;
    Index first = (Index)blockIdx.y * length;
    Index end = first + length < rows ? first + length : rows;
    float weight = 0.0f, bias = 0.0f;
    for (Index row = first; row < end; row++) {
        float d = to_float(dy[row * width + column]);
        weight += d * (to_float(x[row * width + column]) - mean[row]) * rstd[row];
        bias += d;
    }
    weights[(Index)blockIdx.y * width + column] = weight;
    biases[(Index)blockIdx.y * width + column] = bias;
}
#define LAYER_NORM_WEIGHTS(x, d)                                                            \
    EXPORT(layer_norm_weights_##x##_##d,                                                    \
           (const x *at, const float *mean, const float *rstd, const d *dy, float *weights, \
            float *biases, Index rows, Index width, Index length),                          \
           layer_norm_weights(at, mean, rstd, dy, weights, biases, rows, width, length))
LAYER_NORM_WEIGHTS(f32, f32)
LAYER_NORM_WEIGHTS(f32, bf16)
LAYER_NORM_WEIGHTS(bf16, f32)
LAYER_NORM_WEIGHTS(bf16, bf16)
