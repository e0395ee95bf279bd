// Gated units: x [rows, 2·width] → first half × activation(second half). Numbers of
// activations are those of modgrad_compute::function.

DEVICE float gate_value(int activation, float x) {
    switch (activation) {
    case 0: return sigmoid(x);
    case 1: return x * sigmoid(x);
    case 2: return x * sigmoid(gelu_argument(x));
    case 3: return relu(x);
    default: return x;
    }
}

DEVICE float gate_derivative(int activation, float x) {
    float y;
    switch (activation) {
    case 0: y = sigmoid(x); return y * (1.0f - y);
    case 1: y = sigmoid(x); return y + x * y * (1.0f - y);
    case 2: return gelu_derivative(x);
    case 3: return step(x);
    default: return 1.0f;
    }
}

template <class X, class Y>
DEVICE void gated_linear_unit(int activation, const X *x, Y *y, Index width, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    x += i / width * 2 * width + i % width;
    store(y + i, to_float(x[0]) * gate_value(activation, to_float(x[width])));
}
#define GLU(x, y)                                                                           \
    EXPORT(gated_linear_unit_##x##_##y,                                                     \
           (int activation, const x *from, y *to, Index width, Index count),                \
           gated_linear_unit(activation, from, to, width, count))
GLU(f32, f32)
GLU(f32, bf16)
GLU(bf16, f32)
GLU(bf16, bf16)

template <class X, class D, class G>
DEVICE void gated_linear_unit_gradient(int activation, const X *x, const D *dy, G *dx,
                                       Index width, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index at = i / width * 2 * width + i % width;
    float value = to_float(x[at]), gate = to_float(x[at + width]), d = to_float(dy[i]);
    store(dx + at, d * gate_value(activation, gate));
    store(dx + at + width, d * value * gate_derivative(activation, gate));
}
#define GLU_GRADIENT(x, d, g)                                                               \
    EXPORT(gated_linear_unit_gradient_##x##_##d##_##g,                                      \
           (int activation, const x *at, const d *dy, g *dx, Index width, Index count),     \
           gated_linear_unit_gradient(activation, at, dy, dx, width, count))
GLU_GRADIENT(f32, f32, f32)
GLU_GRADIENT(f32, f32, bf16)
GLU_GRADIENT(f32, bf16, f32)
GLU_GRADIENT(f32, bf16, bf16)
GLU_GRADIENT(bf16, f32, f32)
GLU_GRADIENT(bf16, f32, bf16)
GLU_GRADIENT(bf16, bf16, f32)
GLU_GRADIENT(bf16, bf16, bf16)
