// Synchronisation of pairs of neurons over time: α_k = r·α_{k−1} + z_left·z_right,
// β_k = r·β_{k−1} + 1, s_k = α_k/√β_k; a thread a (sample, pair).
//
// State k of a sample is `start` [B, N] for k = 0, else states [B, T, N] at k − 1. A launch
// goes through k from `first` to below `end`. What it keeps of each k has `rows` rows a
// sample, k in row k mod `rows`: all, or in one row only the latest.

// `Recurrence` of modgrad_device::ops::synchronisation.
struct Recurrence {
    const float *start, *states;
    const int *left, *right;
    const float *retention;
    const float *beta; // [all k, S]
    Index ticks, neurons, pairs, first, end;

    DEVICE const float *state(Index sample, Index k) const {
        return k == 0 ? start + sample * neurons
                      : states + (sample * ticks + k - 1) * neurons;
    }
};

EXPORT(synchronisation_norms, (const float *retention, float *beta, Index pairs, Index count), {
    Index pair = thread_index();
    if (pair >= pairs) return;
    float value = 0.0f;
    for (Index k = 0; k < count; k++) {
        value = retention[pair] * value + 1.0f;
        beta[k * pairs + pair] = value;
    }
})

// alphas [B, alpha_rows, S], of which that before `first` is read, and out [B, out_rows, S].
EXPORT(synchronisation,
       (Recurrence given, float *alphas, Index alpha_rows, float *out, Index out_rows,
        Index count, unsigned long long *flag, int check), {
    Index i = thread_index();
    if (i >= count) return;
    Index sample = i / given.pairs, pair = i % given.pairs;
    Index left = checked_index(given.left[pair], given.neurons, flag, check);
    Index right = checked_index(given.right[pair], given.neurons, flag, check);
    alphas += sample * alpha_rows * given.pairs + pair;
    out += sample * out_rows * given.pairs + pair;
    float alpha = given.first > 0 ? alphas[(given.first - 1) % alpha_rows * given.pairs] : 0.0f;
    for (Index k = given.first; k < given.end; k++) {
        const float *z = given.state(sample, k);
        alpha = given.retention[pair] * alpha + (left < 0 ? 0.0f : z[left] * z[right]);
        alphas[k % alpha_rows * given.pairs] = alpha;
        out[k % out_rows * given.pairs] = alpha / sqrtf(given.beta[k * given.pairs + pair]);
    }
})

// The adjoint, from the last k to the first: dalphas [B, rows, S] from dout [B, rows, S] and
// all alphas [B, alpha_rows, S]; dbeta and dretention [B, S] go on from where the k before
// have left them, or from 0 where `begins`.
EXPORT(synchronisation_adjoint,
       (Recurrence given, const float *alphas, Index alpha_rows, const float *dout,
        float *dalphas, Index rows, float *dbetas, float *dretention, int begins, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index sample = i / given.pairs, pair = i % given.pairs;
    alphas += sample * alpha_rows * given.pairs + pair;
    dout += sample * rows * given.pairs + pair;
    dalphas += sample * rows * given.pairs + pair;
    const float *beta = given.beta + pair;
    float r = given.retention[pair];
    float dalpha = begins ? 0.0f : dalphas[given.end % rows * given.pairs];
    float dbeta = begins ? 0.0f : dbetas[i], total = begins ? 0.0f : dretention[i];
    for (Index k = given.end - 1; k >= given.first; k--) {
        float d = dout[k % rows * given.pairs], norm = beta[k * given.pairs];
        float root = 1.0f / sqrtf(norm);
        dalpha = d * root + r * dalpha;
        dbeta = -0.5f * d * alphas[k * given.pairs] * root * root * root + r * dbeta;
        if (k > 0)
            total += dalpha * alphas[(k - 1) * given.pairs] + dbeta * beta[(k - 1) * given.pairs];
        dalphas[k % rows * given.pairs] = dalpha;
    }
    dbetas[i] = dbeta;
    dretention[i] = total;
})

// Which pairs a neuron is in: `positions` of the left members, then of the right ones,
// ordered by neuron, and where each neuron's `starts` (kernels/order.hip).
struct Memberships {
    const int *positions, *starts;
};

// The gradient of neuron `neuron` in state k: dα of each of its pairs times its partner.
DEVICE float of_pairs(const Recurrence &given, const Memberships &members, const float *dalphas,
                      Index rows, Index sample, Index k, Index neuron) {
    const float *z = given.state(sample, k);
    dalphas += (sample * rows + k % rows) * given.pairs;
    float total = 0.0f;
    for (Index at = members.starts[neuron]; at < members.starts[neuron + 1]; at++) {
        Index member = members.positions[at];
        Index pair = member < given.pairs ? member : member - given.pairs;
        Index partner = member < given.pairs ? given.right[pair] : given.left[pair];
        if (partner >= 0 && partner < given.neurons) total += dalphas[pair] * z[partner];
    }
    return total;
}

EXPORT(synchronisation_states,
       (Recurrence given, Memberships members, const float *dalphas, float *dstart,
        float *dstates, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index neuron = i % given.neurons, k = i / given.neurons % given.end;
    Index sample = i / given.neurons / given.end;
    float total = of_pairs(given, members, dalphas, given.end, sample, k, neuron);
    float *to = k == 0 ? dstart + sample * given.neurons
                       : dstates + (sample * given.ticks + k - 1) * given.neurons;
    to[neuron] = total;
})

// The same of one k, added to dz [B, N].
EXPORT(synchronisation_state,
       (Recurrence given, Memberships members, const float *dalphas, float *dz, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index sample = i / given.neurons, neuron = i % given.neurons;
    dz[i] += of_pairs(given, members, dalphas, 1, sample, given.first, neuron);
})
