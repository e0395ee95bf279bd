// A gated recurrence over x [batch, time, 3·channels], rows of retain, value and gate:
// a = σ(retain + retention), h[t] = a·h[t − 1] + (1 − a)·value, y = h·silu(gate); one
// thread a channel of a window, so that neighbours read neighbours.

template <class X, class Y>
DEVICE void recurrence(const X *x, const float *retention, Y *y, Index time, Index channels,
                       Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index c = i % channels, row = i / channels * time;
    float state = 0.0f;
    for (Index t = 0; t < time; t++, row++) {
        const X *at = x + row * 3 * channels + c;
        float keep = sigmoid(to_float(at[0]) + retention[c]);
        float value = to_float(at[channels]), gate = to_float(at[2 * channels]);
        state = value + keep * (state - value);
        store(y + row * channels + c, state * gate * sigmoid(gate));
    }
}
#define RECURRENCE(x, y)                                                                    \
    EXPORT(gated_recurrence_##x##_##y,                                                      \
           (const x *from, const float *retention, y *to, Index time, Index channels,       \
            Index count),                                                                   \
           recurrence(from, retention, to, time, channels, count))
RECURRENCE(f32, f32)
RECURRENCE(f32, bf16)
RECURRENCE(bf16, f32)
RECURRENCE(bf16, bf16)

// The states are run again into `states` [batch, time, channels]; `parts` [batch, channels]
// are the gradients of retention by window.
template <class X, class D, class G>
DEVICE void recurrence_back(const X *x, const float *retention, const D *dy, G *dx,
                            float *states, float *parts, Index time, Index channels,
                            Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index c = i % channels, first = i / channels * time;
    float state = 0.0f;
    for (Index row = first; row < first + time; row++) {
        const X *at = x + row * 3 * channels + c;
        float keep = sigmoid(to_float(at[0]) + retention[c]), value = to_float(at[channels]);
        state = value + keep * (state - value);
        states[row * channels + c] = state;
    }
    // a[t + 1] times the whole gradient of h[t + 1].
    float carried = 0.0f, sum = 0.0f;
    for (Index row = first + time - 1; row >= first; row--) {
        const X *at = x + row * 3 * channels + c;
        G *to = dx + row * 3 * channels + c;
        float keep = sigmoid(to_float(at[0]) + retention[c]);
        float value = to_float(at[channels]), gate = to_float(at[2 * channels]);
        float d = to_float(dy[row * channels + c]), open = sigmoid(gate);
        float whole = d * gate * open + carried;
        float before = row > first ? states[(row - 1) * channels + c] : 0.0f;
        float change = whole * (before - value) * keep * (1.0f - keep);
        store(to, change);
        store(to + channels, whole * (1.0f - keep));
        store(to + 2 * channels,
              d * states[row * channels + c] * (open + gate * open * (1.0f - open)));
        carried = keep * whole;
        sum += change;
    }
    parts[i] = sum;
}
#define RECURRENCE_GRADIENT(x, d, g)                                                        \
    EXPORT(gated_recurrence_gradient_##x##_##d##_##g,                                       \
           (const x *from, const float *retention, const d *dy, g *dx, float *states,       \
            float *parts, Index time, Index channels, Index count),                         \
           recurrence_back(from, retention, dy, dx, states, parts, time, channels, count))
RECURRENCE_GRADIENT(f32, f32, f32)
RECURRENCE_GRADIENT(f32, f32, bf16)
RECURRENCE_GRADIENT(f32, bf16, f32)
RECURRENCE_GRADIENT(f32, bf16, bf16)
RECURRENCE_GRADIENT(bf16, f32, f32)
RECURRENCE_GRADIENT(bf16, f32, bf16)
RECURRENCE_GRADIENT(bf16, bf16, f32)
RECURRENCE_GRADIENT(bf16, bf16, bf16)
