// Neurons on a lattice: `modgrad_ctm::spatial`. A row is a cell of a sample; a thread an
// element of rows of C, if nothing else is said. Letters: C channels, M trace.

// `Lattice` of modgrad_device::ops::spatial.
struct Lattice {
    const float *neuron, *neuron_bias, *retention; // [M, 2, C], [2, C], [2C]
    Index batch, height, width, channels, memory;

    DEVICE Index cells() const { return height * width; }
    DEVICE Index rows() const { return batch * cells(); }
    // The row whose axons of group `group` end at `row`, or −1.
    DEVICE Index source(Index row, Index group) const {
        Index cell = row % cells(), y = cell / width, x = cell % width;
        switch (group) {
        case 0: return y > 0 ? row - width : -1;
        case 1: return y + 1 < height ? row + width : -1;
        case 2: return x > 0 ? row - 1 : -1;
        default: return x + 1 < width ? row + 1 : -1;
        }
    }
    DEVICE Index group(Index channel) const { return channel / (channels / 4); }
    // What a row hears on a channel.
    DEVICE float heard(const float *states, Index row, Index channel) const {
        Index from = source(row, group(channel));
        return from < 0 ? 0.0f : states[from * channels + channel];
    }
    // The channel of the same number in the next group, and in the one before.
    DEVICE Index next(Index channel) const { return (channel + channels / 4) % channels; }
    DEVICE Index before(Index channel) const {
        return (channel + channels - channels / 4) % channels;
    }
};

// Activations of several ticks; a tick's M are at slots `oldest` on, modulo `modulus`.
struct Slots {
    float *values;
    Index by_sample, by_slot, oldest, modulus;

    // Slot `m` of element i of rows of C, `size` of them a sample.
    DEVICE float *at(Index i, Index size, Index m) const {
        return values + i / size * by_sample + (oldest + m) % modulus * by_slot + i % size;
    }
};

struct Parts {
    float value, open;
};

// A neuron's model: value and σ(gate).
DEVICE Parts neuron_parts(const Lattice &given, const Slots &slots, Index i) {
    Index channel = i % given.channels, size = given.cells() * given.channels;
    float value = given.neuron_bias[channel], gate = given.neuron_bias[given.channels + channel];
    for (Index m = 0; m < given.memory; m++) {
        float a = *slots.at(i, size, m);
        value += a * given.neuron[2 * m * given.channels + channel];
        gate += a * given.neuron[(2 * m + 1) * given.channels + channel];
    }
    Parts parts;
    parts.value = value;
    parts.open = sigmoid(gate);
    return parts;
}

// β of every pair at ticks below `count` [count, 2C], and its derivative by r.
EXPORT(lattice_norms,
       (const float *retention, float *beta, float *slope, Index pairs, Index count), {
    Index pair = thread_index();
    if (pair >= pairs) return;
    float value = 1.0f, derivative = 0.0f;
    for (Index tick = 0; tick < count; tick++) {
        beta[tick * pairs + pair] = value;
        slope[tick * pairs + pair] = derivative;
        derivative = retention[pair] * derivative + value;
        value = retention[pair] * value + 1.0f;
    }
})

// The start in M slots of every row, and in those of the kept that lie before the ticks:
// its slot m is kept as slot m − given.
EXPORT(lattice_begin,
       (Lattice lattice, const float *start, Slots ring, Slots kept, Index given, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index size = lattice.cells() * lattice.channels;
    for (Index m = 0; m < lattice.memory; m++) {
        float a = start[m * lattice.channels + i % lattice.channels];
        *ring.at(i, size, m) = a;
        if (kept.values && m >= given) *kept.at(i, size, m - given) = a;
    }
})

// states of a tick, and where asked for the models' value and σ(gate) [rows, 2C].
EXPORT(lattice_neurons, (Lattice given, Slots slots, float *states, float *parts, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Parts found = neuron_parts(given, slots, i);
    states[i] = found.value * found.open;
    if (!parts) return;
    Index row = i / given.channels, channel = i % given.channels;
    parts[2 * row * given.channels + channel] = found.value;
    parts[(2 * row + 1) * given.channels + channel] = found.open;
})

// (own, heard) of every row [rows, 2C].
EXPORT(lattice_hear, (Lattice given, const float *states, float *heard, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index row = i / given.channels, channel = i % given.channels;
    heard[2 * row * given.channels + channel] = states[i];
    heard[(2 * row + 1) * given.channels + channel] = given.heard(states, row, channel);
})

// α of each row's pairs [rows, 2C] takes a tick's states in; what is read of it goes into
// those of `readings` [B, readings_count, Y, X, 2C] whose `reads` name the tick, and α itself
// into `sums` unless it is null.
EXPORT(lattice_synchronise,
       (Lattice given, const float *states, float *alphas, const float *beta, const int *reads,
        Index reads_count, float *readings, float *sums, int tick, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index row = i / given.channels, channel = i % given.channels, pairs = 2 * given.channels;
    Index sample = row / given.cells(), cell = row % given.cells();
    for (int which = 0; which < 2; which++) {
        Index pair = which * given.channels + channel, at = row * pairs + pair;
        float other = which == 0 ? states[row * given.channels + given.next(channel)]
                                 : given.heard(states, row, channel);
        float alpha = tick == 0 ? 0.0f : given.retention[pair] * alphas[at];
        alpha += states[i] * other;
        alphas[at] = alpha;
        if (sums) sums[at] = alpha;
        for (Index k = 0; k < reads_count; k++)
            if (reads[k] == tick)
                readings[((sample * reads_count + k) * given.cells() + cell) * pairs + pair] =
                    alpha / sqrtf(beta[tick * pairs + pair]);
    }
})

// From the synapse's product [rows, 2C] of a tick to the activations and states of the next,
// whose slots `ring` names. Kept, unless null, are the activations in slot `slot` of `kept`
// and (tanh(u), σ(g)) from `gates` on, `by_sample` elements from one sample to the next.
EXPORT(lattice_move,
       (Lattice given, const float *product, const float *drive, Slots ring, Slots kept,
        Index slot, float *gates, Index by_sample, float *states, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index row = i / given.channels, channel = i % given.channels;
    Index size = given.cells() * given.channels;
    Index at = 2 * row * given.channels + channel, behind = at + given.channels;
    float u = tanhf(product[at] + drive[at]), g = sigmoid(product[behind] + drive[behind]);
    // The slot before the newest: with a trace of one the same.
    float before = *ring.at(i, size, given.memory > 1 ? given.memory - 2 : 0);
    float a = before + g * (u - before);
    *ring.at(i, size, given.memory - 1) = a;
    if (kept.values) *kept.at(i, size, slot) = a;
    if (gates) {
        Index sample = row / given.cells(), cell = row % given.cells();
        gates += sample * by_sample + 2 * cell * given.channels + channel;
        gates[0] = u;
        gates[given.channels] = g;
    }
    Parts parts = neuron_parts(given, ring, i);
    states[i] = parts.value * parts.open;
})

// ---- the adjoint ---------------------------------------------------------------
// ᾱ is the gradient of α, and κ_t = Σ_{k>t} r^{k−t−1}·ᾱ_k: a product at tick t takes κ_t times itself to that of r.

// One tick back in ᾱ and κ [rows, 2C], unless the first, and what was read at `tick`; the
// row's part of the gradient of r gains its share of β. A thread an element of rows of 2C.
EXPORT(lattice_unread,
       (Lattice given, float *dalphas, float *kappas, const float *beta, const float *slope,
        const int *reads, Index reads_count, const float *readings, const float *dreadings,
        float *dretention, int tick, int fades, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index pairs = 2 * given.channels, pair = i % pairs, row = i / pairs;
    Index sample = row / given.cells(), cell = row % given.cells();
    float dalpha = dalphas[i];
    if (fades) {
        kappas[i] = given.retention[pair] * kappas[i] + dalpha;
        dalpha *= given.retention[pair];
    }
    float norm = beta[tick * pairs + pair], total = 0.0f;
    for (Index k = 0; k < reads_count; k++)
        if (reads[k] == tick) {
            Index at = ((sample * reads_count + k) * given.cells() + cell) * pairs + pair;
            dalpha += dreadings[at] / sqrtf(norm);
            total -= 0.5f * dreadings[at] * readings[at] * slope[tick * pairs + pair] / norm;
        }
    dalphas[i] = dalpha;
    dretention[i] += total;
})

// The row's part of the gradient of r gains α·κ of the tick that is given.
EXPORT(lattice_given, (const float *sums, const float *kappas, float *dretention, Index count), {
    Index i = thread_index();
    if (i < count) dretention[i] += sums[i] * kappas[i];
})

// dheard [rows, 2C] and the row's part of the gradient of r gain the pairs' share.
EXPORT(lattice_synchronise_adjoint,
       (Lattice given, const float *states, const float *dalphas, const float *kappas,
        float *dheard, float *dretention, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index row = i / given.channels, channel = i % given.channels;
    Index next = given.next(channel), before = given.before(channel);
    Index at = 2 * row * given.channels + channel, behind = at + given.channels;
    Index start = row * given.channels;
    float own = states[i], heard = given.heard(states, row, channel);
    dheard[at] += dalphas[at] * states[start + next] + dalphas[behind] * heard +
                  dalphas[at - channel + before] * states[start + before];
    dheard[behind] += dalphas[behind] * own;
    dretention[at] += kappas[at] * own * states[start + next];
    dretention[behind] += kappas[behind] * own * heard;
})

// From dheard of a tick through neuron-level models and gates. `ring` has the gradients of
// activations in M + 1 slots, oldest first, and before them that of the tick before these.
// dparts [rows, 2C] are the gradients of the models' value and gate; with `moves`, dsynapse
// [rows, 2C] that of the synapse, from `gates` (kept as lattice_move does) and the slot of
// `kept` before the newest; ddrive gains it.
EXPORT(lattice_adjoint,
       (Lattice given, const float *parts, const float *dheard, Slots ring, float *dparts,
        int moves, Slots kept, const float *gates, Index by_sample, float *dsynapse,
        float *ddrive, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index row = i / given.channels, channel = i % given.channels;
    Index size = given.cells() * given.channels;
    Index at = 2 * row * given.channels + channel, behind = at + given.channels;
    // Whoever hears this neuron is where its axon ends.
    Index target = given.source(row, given.group(channel) ^ 1);
    float dz = dheard[at];
    if (target >= 0) dz += dheard[(2 * target + 1) * given.channels + channel];
    float dvalue = dz * parts[behind];
    float dgate = dvalue * parts[at] * (1.0f - parts[behind]);
    dparts[at] = dvalue;
    dparts[behind] = dgate;
    for (Index m = 0; m < given.memory; m++)
        *ring.at(i, size, m) += dvalue * given.neuron[2 * m * given.channels + channel] +
                                dgate * given.neuron[(2 * m + 1) * given.channels + channel];
    if (!moves) return;
    Index sample = row / given.cells(), cell = row % given.cells();
    gates += sample * by_sample + 2 * cell * given.channels + channel;
    float u = gates[0], g = gates[given.channels];
    float before = *kept.at(i, size, 0);
    float *newest = ring.at(i, size, given.memory - 1);
    float now = *newest, moved = now * g;
    *newest = 0.0f;
    // One before the newest; with a trace of one that stands behind it in the ring.
    *ring.at(i, size, given.memory > 1 ? given.memory - 2 : 1) += now - moved;
    float du = moved * (1.0f - u * u), dg = moved * (1.0f - g) * (u - before);
    dsynapse[at] = du;
    dsynapse[behind] = dg;
    ddrive[at] += du;
    ddrive[behind] += dg;
})

// Terms of the gradients of the models' weights [M, 2, C] and bias [2, C], one behind the
// other in sums [chunks, (M + 1)·2C]: blockIdx.y is a chunk of `length` rows, a thread a
// weight. Unless it `begins`, the chunk's sum goes on.
EXPORT(lattice_weights,
       (Lattice given, Slots kept, const float *dparts, float *sums, Index length, int begins,
        Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index pairs = 2 * given.channels, m = i / pairs, channel = i % given.channels;
    Index size = given.cells() * given.channels, first = (Index)blockIdx.y * length;
    Index end = first + length < given.rows() ? first + length : given.rows();
    sums += (Index)blockIdx.y * count + i;
    float total = begins ? 0.0f : *sums;
    for (Index row = first; row < end; row++) {
        float d = dparts[row * pairs + i % pairs];
        total += m < given.memory ? d * *kept.at(row * given.channels + channel, size, m) : d;
    }
    *sums = total;
})
