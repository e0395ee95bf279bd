// Neuron-level models: every neuron has GLU layers of its own over its last M slots of
// trace. Traces lie [slots, B, N], so that a tick's are one stretch; what is kept of several
// ticks for the gradients of weights lies [ticks, .., B, N]. A thread a (sample, neuron).

// `Neurons` of modgrad_device::ops::thought.
struct Neurons {
    const float *level1, *bias1; // [M, O, N], [O, N]
    const float *level2, *bias2; // [H, 2, N], [2, N], or null where there is no hidden layer
    const float *temperatures;   // of each level, or null
    Index batch, neurons, memory, hidden;

    // O / 2.
    DEVICE Index units() const { return hidden ? hidden : 1; }
    // What a level's weights and biases are multiplied by.
    DEVICE float scale(int level) const { return temperatures ? 1.0f / temperatures[level] : 1.0f; }
    // Output `output` of the first level, `slots` from the neuron's oldest on.
    DEVICE float first(const float *slots, Index neuron, Index output) const {
        Index all = 2 * units(), stride = batch * neurons;
        float total = bias1[output * neurons + neuron];
        for (Index m = 0; m < memory; m++)
            total += slots[m * stride] * level1[(m * all + output) * neurons + neuron];
        return total * scale(0);
    }
};

// states [B, ticks, N] at a tick, whose oldest slot `slots` begin with.
EXPORT(neuron_models,
       (Neurons given, const float *slots, float *states, Index ticks, Index tick, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index neuron = i % given.neurons, sample = i / given.neurons;
    slots += i;
    float value = 0.0f, gate = 0.0f;
    if (given.hidden == 0) {
        value = given.first(slots, neuron, 0);
        gate = given.first(slots, neuron, 1);
    } else {
        value = given.bias2[neuron];
        gate = given.bias2[given.neurons + neuron];
        for (Index unit = 0; unit < given.hidden; unit++) {
            float open = sigmoid(given.first(slots, neuron, given.hidden + unit));
            float hidden = given.first(slots, neuron, unit) * open;
            value += hidden * given.level2[2 * unit * given.neurons + neuron];
            gate += hidden * given.level2[(2 * unit + 1) * given.neurons + neuron];
        }
        value *= given.scale(1);
        gate *= given.scale(1);
    }
    states[(sample * ticks + tick) * given.neurons + neuron] = value * sigmoid(gate);
})

// From dz [B, N] and dstates [B, ticks, N] of the tick: dslots gain their share; kept are
// dfirst [O, B, N] and, with a hidden layer, its values [H, B, N] and dsecond [2, B, N],
// gradients before the levels' scales.
EXPORT(neuron_models_adjoint,
       (Neurons given, const float *slots, const float *dz, const float *dstates, float *dslots,
        float *dfirst, float *values, float *dsecond, Index ticks, Index tick, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index neuron = i % given.neurons, sample = i / given.neurons;
    Index neurons = given.neurons, units = given.units(), stride = given.batch * neurons;
    float d = dz[i] + dstates[(sample * ticks + tick) * neurons + neuron];
    slots += i;
    dslots += i;
    dfirst += i;
    for (Index output = 0; output < 2 * units; output++)
        dfirst[output * stride] = given.first(slots, neuron, output);
    if (given.hidden == 0) {
        float value = dfirst[0], open = sigmoid(dfirst[stride]);
        dfirst[0] = d * open;
        dfirst[stride] = d * value * open * (1.0f - open);
    } else {
        const float *level2 = given.level2 + neuron;
        values += i;
        dsecond += i;
        float value = given.bias2[neuron], gate = given.bias2[neurons + neuron];
        for (Index unit = 0; unit < units; unit++) {
            float hidden = dfirst[unit * stride] * sigmoid(dfirst[(units + unit) * stride]);
            values[unit * stride] = hidden;
            value += hidden * level2[2 * unit * neurons];
            gate += hidden * level2[(2 * unit + 1) * neurons];
        }
        value *= given.scale(1);
        float open = sigmoid(gate * given.scale(1));
        float dvalue = d * open, dgate = d * value * open * (1.0f - open);
        dsecond[0] = dvalue;
        dsecond[stride] = dgate;
        for (Index unit = 0; unit < units; unit++) {
            float of_hidden = (dvalue * level2[2 * unit * neurons] +
                               dgate * level2[(2 * unit + 1) * neurons]) *
                              given.scale(1);
            float first = dfirst[unit * stride], opened = sigmoid(dfirst[(units + unit) * stride]);
            dfirst[unit * stride] = of_hidden * opened;
            dfirst[(units + unit) * stride] = of_hidden * first * opened * (1.0f - opened);
        }
    }
    for (Index m = 0; m < given.memory; m++) {
        float total = 0.0f;
        for (Index output = 0; output < 2 * units; output++)
            total += dfirst[output * stride] *
                     given.level1[(m * 2 * units + output) * neurons + neuron];
        dslots[m * stride] += total * given.scale(0);
    }
})

// The gradients of a level's weight [inputs, outputs, N] and bias [outputs, N], summed over
// samples and `steps` ticks: input k of tick c stands c · step + k rows [B, N] into x, output
// j c · outputs + j rows into dy. A thread an element; where not `begins`, sums are added to.
EXPORT(neuron_weights,
       (const float *x, Index step, const float *dy, float *dweight, float *dbias, Index batch,
        Index neurons, Index inputs, Index outputs, Index steps, int begins, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index neuron = i % neurons, output = i / neurons % outputs, input = i / neurons / outputs;
    float *to = input < inputs ? dweight + i : dbias + output * neurons + neuron;
    float total = begins ? 0.0f : *to;
    for (Index c = 0; c < steps; c++) {
        const float *left = x + (c * step + input) * batch * neurons + neuron;
        const float *right = dy + (c * outputs + output) * batch * neurons + neuron;
        for (Index sample = 0; sample < batch; sample++)
            total += right[sample * neurons] * (input < inputs ? left[sample * neurons] : 1.0f);
    }
    *to = total;
})

// parts [gridDim.x] of Σ d·given over a weight and a bias: the gradient of their scale.
EXPORT(neuron_scale_gradient,
       (const float *dweight, const float *weight, Index weights, const float *dbias,
        const float *bias, Index biases, float *parts), {
    float total = 0.0f;
    for (Index i = thread_index(); i < weights + biases; i += (Index)gridDim.x * BLOCK)
        total += i < weights ? dweight[i] * weight[i] : dbias[i - weights] * bias[i - weights];
    total = block_sum(total);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
})

// A scale is 1/temperature.
EXPORT(neuron_temperature,
       (const float *parts, Index count, const float *temperature, float *dtemperature), {
    float total = 0.0f;
    for (Index part = 0; part < count; part++) total += parts[part];
    if (thread_index() == 0) *dtemperature = -total / (*temperature * *temperature);
})

EXPORT(neuron_scale, (float *d, const float *temperature, Index count), {
    Index i = thread_index();
    if (i < count) d[i] /= *temperature;
})
