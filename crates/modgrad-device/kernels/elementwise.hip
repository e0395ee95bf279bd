// Elementwise functions. Numbers of functions are those of modgrad_compute::function.

DEVICE float unary_value(int function, float x) {
    switch (function) {
    case 0: return -x;
    case 1: return fabsf(x);
    case 2: return expf(x);
    case 3: return logf(x);
    case 4: return sqrtf(x);
    case 5: return x * x;
    case 6: return 1.0f / x;
    case 7: return tanhf(x);
    case 8: return sigmoid(x);
    case 9: return softplus(x);
    case 10: return relu(x);
    case 11: return relu(x) * relu(x);
    case 12: return x * sigmoid(x);
    default: return x * sigmoid(gelu_argument(x));
    }
}

DEVICE float unary_derivative(int function, float x) {
    float y;
    switch (function) {
    case 0: return -1.0f;
    case 1: return step(x) - step(-x);
    case 2: return expf(x);
    case 3: return 1.0f / x;
    case 4: return 0.5f / sqrtf(x);
    case 5: return 2.0f * x;
    case 6: return -1.0f / (x * x);
    case 7: y = tanhf(x); return 1.0f - y * y;
    case 8: y = sigmoid(x); return y * (1.0f - y);
    case 9: return sigmoid(x);
    case 10: return step(x);
    case 11: return 2.0f * relu(x);
    case 12: y = sigmoid(x); return y + x * y * (1.0f - y);
    default: return gelu_derivative(x);
    }
}

DEVICE float binary_value(int function, float x, float y) {
    switch (function) {
    case 0: return x + y;
    case 1: return x - y;
    case 2: return x * y;
    case 3: return x / y;
    case 4: return x > y || x != x ? x : y;
    default: return x < y || x != x ? x : y;
    }
}

template <class X, class Y> DEVICE void unary(int function, const X *x, Y *y, Index count) {
    Index i = thread_index();
    if (i < count) store(y + i, unary_value(function, to_float(x[i])));
}
#define UNARY(x, y) \
    EXPORT(unary_##x##_##y, (int function, const x *from, y *to, Index count), \
           unary(function, from, to, count))
UNARY(f32, f32)
UNARY(f32, bf16)
UNARY(bf16, f32)
UNARY(bf16, bf16)

template <class X, class D, class G>
DEVICE void unary_gradient(int function, const X *x, const D *dy, G *dx, Index count) {
    Index i = thread_index();
    if (i < count) store(dx + i, to_float(dy[i]) * unary_derivative(function, to_float(x[i])));
}
#define UNARY_GRADIENT(x, d, g)                                                              \
    EXPORT(unary_gradient_##x##_##d##_##g,                                                   \
           (int function, const x *at, const d *dy, g *dx, Index count),                     \
           unary_gradient(function, at, dy, dx, count))
UNARY_GRADIENT(f32, f32, f32)
UNARY_GRADIENT(f32, f32, bf16)
UNARY_GRADIENT(f32, bf16, f32)
UNARY_GRADIENT(f32, bf16, bf16)
UNARY_GRADIENT(bf16, f32, f32)
UNARY_GRADIENT(bf16, f32, bf16)
UNARY_GRADIENT(bf16, bf16, f32)
UNARY_GRADIENT(bf16, bf16, bf16)

template <class X, class Y>
DEVICE void binary(int function, const X *x, const Y *y, float *out, Index count) {
    Index i = thread_index();
    if (i < count) out[i] = binary_value(function, to_float(x[i]), to_float(y[i]));
}
#define BINARY(x, y)                                                                     \
    EXPORT(binary_##x##_##y,                                                             \
           (int function, const x *left, const y *right, float *out, Index count),       \
           binary(function, left, right, out, count))
BINARY(f32, f32)
BINARY(f32, bf16)
BINARY(bf16, f32)
BINARY(bf16, bf16)

// `axes.first` and `axes.second` are the operands' strides, 0 where one repeats.
DEVICE void binary_broadcast_body(int function, const float *x, const float *y, float *out,
                                  Axes axes, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index rest = i, at_x = 0, at_y = 0;
    for (int axis = (int)axes.rank - 1; axis >= 0; axis--) {
        Index place = rest % axes.size[axis];
        rest /= axes.size[axis];
        at_x += place * axes.first[axis];
        at_y += place * axes.second[axis];
    }
    out[i] = binary_value(function, x[at_x], y[at_y]);
}
EXPORT(binary_broadcast,
       (int function, const float *x, const float *y, float *out, Axes axes, Index count),
       binary_broadcast_body(function, x, y, out, axes, count))

template <class X>
DEVICE void affine(const X *x, float *y, float scale, float offset, Index count) {
    Index i = thread_index();
    if (i < count) y[i] = scale * to_float(x[i]) + offset;
}
#define AFFINE(x)                                                                       \
    EXPORT(affine_##x, (const x *from, float *to, float scale, float offset, Index count), \
           affine(from, to, scale, offset, count))
AFFINE(f32)
AFFINE(bf16)

template <class X> DEVICE void numbers(const X *x, float *y, Index count) {
    Index i = thread_index();
    if (i < count) y[i] = to_float(x[i]);
}
EXPORT(to_float_i32, (const int *from, float *to, Index count), numbers(from, to, count))
EXPORT(to_float_u8, (const unsigned char *from, float *to, Index count), numbers(from, to, count))
