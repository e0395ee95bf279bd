// Dropout. The mask is modgrad_compute::elementwise::dropout's, bit for bit: a function of the
// key and the index alone.

DEVICE unsigned int dropout_mix(unsigned int h) {
    h ^= h >> 16;
    h *= 0x7feb352du;
    h ^= h >> 15;
    h *= 0x846ca68bu;
    return h ^ (h >> 16);
}

// 24 random bits.
DEVICE unsigned int dropout_draw(unsigned long long key, unsigned long long index) {
    unsigned long long z = key + ((index >> 32) + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    unsigned int first = dropout_mix((unsigned int)index ^ (unsigned int)z);
    return dropout_mix(first + (unsigned int)(z >> 32)) >> 8;
}

template <class X, class Y>
DEVICE void dropout(const X *x, Y *y, unsigned long long key, int threshold, float scale,
                    Index count) {
    Index i = thread_index();
    if (i >= count) return;
    bool kept = dropout_draw(key, (unsigned long long)i) < (unsigned int)threshold;
    store(y + i, kept ? to_float(x[i]) * scale : 0.0f);
}
#define DROPOUT(x, y)                                                                       \
    EXPORT(dropout_##x##_##y,                                                               \
           (const x *from, y *to, unsigned long long key, int threshold, float scale,       \
            Index count),                                                                   \
           dropout(from, to, key, threshold, scale, count))
DROPOUT(f32, f32)
DROPOUT(f32, bf16)
DROPOUT(bf16, f32)
DROPOUT(bf16, bf16)
