// Logits with weighted rows of a counted memory added to them: one block a position, whose
// `width` entries are bytes, as `modgrad_ffn::memory::Rows` says.

EXPORT(mix_rows,
       (const float *logits, const float *gates, const float *base, const int *entries,
        const float *difference, const float *multiple, float *out, Index experts, Index width,
        unsigned long long *flag, int check), {
    SHARED(int, bytes, BLOCK);
    SHARED(float, mixed, BLOCK);
    Index position = blockIdx.x;
    int thread = threadIdx.x;
    gates += position * experts;
    multiple += position * experts;
    difference += position * experts * width;
    if (thread < width) {
        float sum = 0.0f;
        for (Index k = 0; k < experts; k++) sum += gates[k] * difference[k * width + thread];
        mixed[thread] = sum;
        bytes[thread] = (int)checked_index(entries[position * width + thread], 256, flag, check);
    }
    float scale = 0.0f;
    for (Index k = 0; k < experts; k++) scale += gates[k] * multiple[k];
    barrier();
    // A byte may be an entry more than once.
    Index at = position * 256 + thread;
    float sum = logits[at] + scale * base[at];
    for (int entry = 0; entry < width; entry++)
        if (bytes[entry] == thread) sum += mixed[entry];
    out[at] = sum;
})

EXPORT(mix_rows_gradient,
       (const float *base, const int *entries, const float *difference, const float *multiple,
        const float *dout, float *dgates, Index experts, Index width, unsigned long long *flag,
        int check), {
    SHARED(float, at_entries, BLOCK);
    Index position = blockIdx.x;
    int thread = threadIdx.x;
    dout += position * 256;
    difference += position * experts * width;
    if (thread < width)
        at_entries[thread] =
            dout[checked_index(entries[position * width + thread], 256, flag, check)];
    // Its barriers are those between the entries and their use.
    float common = block_sum(dout[thread] * base[position * 256 + thread]);
    for (Index k = thread; k < experts; k += BLOCK) {
        float sum = 0.0f;
        for (Index entry = 0; entry < width; entry++)
            sum += at_entries[entry] * difference[k * width + entry];
        dgates[position * experts + k] = multiple[position * experts + k] * common + sum;
    }
})
