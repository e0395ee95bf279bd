// Softmax and cross-entropy over rows of classes; one block a row, but where each element
// stands alone one thread an element.

DEVICE float row_logsumexp(const float *x, Index classes) {
    float most = -infinity();
    for (Index i = threadIdx.x; i < classes; i += BLOCK) most = Larger()(x[i], most);
    most = block_maximum(most);
    float sum = 0.0f;
    for (Index i = threadIdx.x; i < classes; i += BLOCK) sum += expf(x[i] - most);
    return most + logf(block_sum(sum));
}

EXPORT(softmax, (const float *x, float *y, Index classes), {
    const float *row = x + (Index)blockIdx.x * classes;
    float most = -infinity();
    for (Index i = threadIdx.x; i < classes; i += BLOCK) most = Larger()(row[i], most);
    most = block_maximum(most);
    float sum = 0.0f;
    for (Index i = threadIdx.x; i < classes; i += BLOCK) sum += expf(row[i] - most);
    float scale = 1.0f / block_sum(sum);
    y += (Index)blockIdx.x * classes;
    for (Index i = threadIdx.x; i < classes; i += BLOCK) y[i] = expf(row[i] - most) * scale;
})

EXPORT(softmax_gradient, (const float *y, const float *dy, float *dx, Index classes), {
    Index start = (Index)blockIdx.x * classes;
    float product = 0.0f;
    for (Index i = threadIdx.x; i < classes; i += BLOCK) product += y[start + i] * dy[start + i];
    product = block_sum(product);
    for (Index i = threadIdx.x; i < classes; i += BLOCK)
        dx[start + i] = y[start + i] * (dy[start + i] - product);
})

template <class T>
DEVICE void cross_entropy(const float *x, const T *targets, float *loss, float *logsumexp,
                          Index classes, unsigned long long *flag, int check) {
    Index row = blockIdx.x;
    float whole = row_logsumexp(x + row * classes, classes);
    if (threadIdx.x != 0) return;
    Index target = checked_index(targets[row], classes, flag, check);
    logsumexp[row] = whole;
    loss[row] = target < 0 ? 0.0f : whole - x[row * classes + target];
}
#define CROSS_ENTROPY(t)                                                                    \
    EXPORT(cross_entropy_##t,                                                               \
           (const float *x, const t *targets, float *loss, float *logsumexp, Index classes, \
            unsigned long long *flag, int check),                                           \
           cross_entropy(x, targets, loss, logsumexp, classes, flag, check))
CROSS_ENTROPY(i32)
CROSS_ENTROPY(u8)

template <class T, class G>
DEVICE void cross_entropy_gradient(const float *x, const T *targets, const float *logsumexp,
                                   const float *dloss, G *dx, Index classes, Index count,
                                   unsigned long long *flag, int check) {
    Index i = thread_index();
    if (i >= count) return;
    Index row = i / classes;
    float hit = checked_index(targets[row], classes, flag, check) == i % classes ? 1.0f : 0.0f;
    store(dx + i, dloss[row] * (expf(x[i] - logsumexp[row]) - hit));
}
#define CROSS_ENTROPY_GRADIENT(t, g)                                                        \
    EXPORT(cross_entropy_gradient_##t##_##g,                                                \
           (const float *x, const t *targets, const float *logsumexp, const float *dloss,   \
            g *dx, Index classes, Index count, unsigned long long *flag, int check),        \
           cross_entropy_gradient(x, targets, logsumexp, dloss, dx, classes, count, flag,   \
                                  check))
CROSS_ENTROPY_GRADIENT(i32, f32)
CROSS_ENTROPY_GRADIENT(i32, bf16)
CROSS_ENTROPY_GRADIENT(u8, f32)
CROSS_ENTROPY_GRADIENT(u8, bf16)
