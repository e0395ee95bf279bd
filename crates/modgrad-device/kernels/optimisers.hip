// Optimisers: each array is read and written once. `shadow` is the bf16 copy of the
// parameter, or null; `clip` as in device.h.

// `modgrad_compute::optimiser::AdamWRates`, in the order of `modgrad_device::optimisers`.
struct AdamWRates {
    float keep, rate, beta1, beta2, one_minus_beta1, one_minus_beta2;
    float root_correction, epsilon, gradient_scale;
};

EXPORT(adamw,
       (float *parameter, const float *gradient, float *first, float *second, bf16 *shadow,
        const float *clip, AdamWRates rates, Index count), {
    Index i = thread_index();
    if (i >= count || refused(clip)) return;
    float g = gradient[i] * clipped(rates.gradient_scale, clip);
    float m = rates.beta1 * first[i] + rates.one_minus_beta1 * g;
    float v = rates.beta2 * second[i] + rates.one_minus_beta2 * g * g;
    first[i] = m;
    second[i] = v;
    float root = sqrtf(v) * rates.root_correction + rates.epsilon;
    float value = parameter[i] * rates.keep - rates.rate * m / root;
    parameter[i] = value;
    if (shadow) shadow[i] = to_bf16(value);
})

// `modgrad_compute::optimiser::Sgd`, the rates that enter the formula.
struct SgdRates {
    float rate, momentum, weight_decay, gradient_scale;
    int nesterov;
};

EXPORT(sgd,
       (float *parameter, const float *gradient, float *velocity, bf16 *shadow,
        const float *clip, SgdRates rates, Index count), {
    Index i = thread_index();
    if (i >= count || refused(clip)) return;
    float g = gradient[i] * clipped(rates.gradient_scale, clip) + rates.weight_decay * parameter[i];
    float v = rates.momentum * velocity[i] + g;
    velocity[i] = v;
    float value = parameter[i] - rates.rate * (rates.nesterov ? g + rates.momentum * v : v);
    parameter[i] = value;
    if (shadow) shadow[i] = to_bf16(value);
})

EXPORT(average, (const float *from, float *average, float decay, Index count), {
    Index i = thread_index();
    if (i < count) average[i] = decay * average[i] + (1.0f - decay) * from[i];
})

// What stands around Muon's orthogonalisation.
EXPORT(muon_momentum,
       (const float *gradient, float *velocity, float *direction, const float *clip,
        float momentum, float gradient_scale, int nesterov, Index count), {
    Index i = thread_index();
    if (i >= count || refused(clip)) return;
    float g = (1.0f - momentum) * (gradient[i] * clipped(gradient_scale, clip));
    float v = momentum * velocity[i] + g;
    velocity[i] = v;
    direction[i] = nesterov ? g + momentum * v : v;
})

EXPORT(muon_apply,
       (const float *direction, float *parameter, bf16 *shadow, const float *clip, float keep,
        float rate, Index count), {
    Index i = thread_index();
    if (i >= count || refused(clip)) return;
    float value = keep * parameter[i] - rate * direction[i];
    parameter[i] = value;
    if (shadow) shadow[i] = to_bf16(value);
})

// x over its norm, in place and as bf16; `squares` are the terms of the squared norm.
EXPORT(muon_normalise,
       (float *x, bf16 *to, const double *squares, Index terms, Index count), {
    double total = 0.0;
    for (Index k = threadIdx.x; k < terms; k += BLOCK) total += squares[k];
    float scale = 1.0f / ((float)sqrt(block_sum(total)) + 1e-7f);
    Index i = thread_index();
    if (i >= count) return;
    x[i] *= scale;
    to[i] = to_bf16(x[i]);
})

// The factor a·1 + b·gram + c·gram² of one Newton–Schulz step, as bf16.
EXPORT(muon_polynomial,
       (const float *gram, const float *square, bf16 *to, Index side, float a, float b, float c,
        Index count), {
    Index i = thread_index();
    if (i < count) to[i] = to_bf16((i % (side + 1) == 0 ? a : 0.0f) + b * gram[i] + c * square[i]);
})
