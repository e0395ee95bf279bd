// Optimisers: each array is read and written once. `shadow` is the bf16 copy of the
// parameter, or null.

// `modgrad_device::optimisers::AdamWRates`.
struct AdamWRates {
    float keep, rate, beta1, beta2, one_minus_beta1, one_minus_beta2;
    float root_correction, epsilon, gradient_scale;
};

EXPORT(adamw,
       (float *parameter, const float *gradient, float *first, float *second, bf16 *shadow,
        AdamWRates rates, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    float g = gradient[i] * rates.gradient_scale;
    float m = rates.beta1 * first[i] + rates.one_minus_beta1 * g;
    float v = rates.beta2 * second[i] + rates.one_minus_beta2 * g * g;
    first[i] = m;
    second[i] = v;
    float root = sqrtf(v) * rates.root_correction + rates.epsilon;
    float value = parameter[i] * rates.keep - rates.rate * m / root;
    parameter[i] = value;
    if (shadow) shadow[i] = to_bf16(value);
})
