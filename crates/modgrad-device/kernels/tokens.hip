// Attention of one query a sample over tokens that stay the same; a block a (sample, head).

// `Tokens` of modgrad_device::ops::thought.
struct Tokens {
    const float *keys, *values; // [B, tokens, heads · channels]
    Index tokens, heads, channels, ticks;
    float scale;

    DEVICE Index width() const { return heads * channels; }
    DEVICE Index sample() const { return blockIdx.x / heads; }
    DEVICE Index head() const { return blockIdx.x % heads; }
    // The block's channels of a sample's row.
    DEVICE Index own() const { return sample() * width() + head() * channels; }
    // Its channels of the first token.
    DEVICE Index first() const { return sample() * tokens * width() + head() * channels; }
    // Its shares of tokens at a tick, in [B, ticks, heads, tokens].
    DEVICE Index shares(Index tick) const {
        return ((sample() * ticks + tick) * heads + head()) * tokens;
    }
    DEVICE float dot(const float *a, const float *b) const {
        float total = 0.0f;
        for (Index c = 0; c < channels; c++) total += a[c] * b[c];
        return total;
    }
};

// out[c] = Σ_l weights[l]·rows[l, c] for the block's channels.
DEVICE void weighted_rows(const Tokens &given, const float *weights, const float *rows,
                          float *out) {
    for (Index c = threadIdx.x; c < given.channels; c += BLOCK) {
        float total = 0.0f;
        for (Index l = 0; l < given.tokens; l++) total += weights[l] * rows[l * given.width() + c];
        out[c] = total;
    }
}

// weights of ticks `first` to below `end`, all the same, and what they read [B, width].
EXPORT(attend_tokens,
       (Tokens given, const float *query, float *weights, float *read, Index first, Index end), {
    const float *keys = given.keys + given.first();
    float *row = weights + given.shares(first);
    float most = -infinity();
    for (Index l = threadIdx.x; l < given.tokens; l += BLOCK) {
        row[l] = given.scale * given.dot(query + given.own(), keys + l * given.width());
        most = Larger()(row[l], most);
    }
    most = block_maximum(most);
    float sum = 0.0f;
    for (Index l = threadIdx.x; l < given.tokens; l += BLOCK) {
        row[l] = expf(row[l] - most);
        sum += row[l];
    }
    float inverse = 1.0f / block_sum(sum);
    for (Index l = threadIdx.x; l < given.tokens; l += BLOCK) {
        row[l] *= inverse;
        for (Index tick = first + 1; tick < end; tick++) weights[given.shares(tick) + l] = row[l];
    }
    barrier();
    weighted_rows(given, row, given.values + given.first(), read + given.own());
})

// The adjoint of a tick: dscores [B, heads, tokens] and dquery [B, width] from dread.
EXPORT(attend_tokens_adjoint,
       (Tokens given, const float *weights, const float *dread, float *dscores, float *dquery,
        Index tick), {
    const float *values = given.values + given.first(), *row = weights + given.shares(tick);
    dscores += (Index)blockIdx.x * given.tokens;
    float mean = 0.0f;
    for (Index l = threadIdx.x; l < given.tokens; l += BLOCK) {
        dscores[l] = given.dot(dread + given.own(), values + l * given.width());
        mean += row[l] * dscores[l];
    }
    mean = block_sum(mean);
    for (Index l = threadIdx.x; l < given.tokens; l += BLOCK)
        dscores[l] = row[l] * (dscores[l] - mean) * given.scale;
    barrier();
    weighted_rows(given, dscores, given.keys + given.first(), dquery + given.own());
})

// The gradients of keys and values, sums over `readings` ticks, of which dscores
// [readings, B, heads, tokens] and dread [readings, B, width] tell; queries [B, ticks, kept]
// have what keys were asked with from `at` on. A thread an element.
EXPORT(tokens_gradient,
       (Tokens given, const float *queries, Index kept, Index at, const float *weights,
        const float *dscores, const float *dread, float *dkeys, float *dvalues, Index batch,
        Index readings, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index width = given.width(), column = i % width, token = i / width % given.tokens;
    Index sample = i / width / given.tokens, head = column / given.channels;
    float dkey = 0.0f, dvalue = 0.0f;
    for (Index tick = 0; tick < readings; tick++) {
        Index row = tick * batch + sample, saved = sample * given.ticks + tick;
        dkey += dscores[(row * given.heads + head) * given.tokens + token] *
                queries[saved * kept + at + column];
        dvalue += weights[(saved * given.heads + head) * given.tokens + token] *
                  dread[row * width + column];
    }
    dkeys[i] = dkey;
    dvalues[i] = dvalue;
})
