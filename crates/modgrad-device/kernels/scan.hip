// Linear recurrence h[t] = a[t]·h[t − 1] + b[t] over [batch, time, channels]; one thread a
// channel of a sample, so that neighbours read neighbours.

DEVICE void scan(const float *a, const float *b, float *h, Index time, Index channels,
                 Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index at = i / channels * time * channels + i % channels;
    float state = 0.0f;
    for (Index t = 0; t < time; t++, at += channels) {
        state = a[at] * state + b[at];
        h[at] = state;
    }
}
EXPORT(linear_scan,
       (const float *a, const float *b, float *h, Index time, Index channels, Index count),
       scan(a, b, h, time, channels, count))

// db[t] = dh[t] + a[t + 1]·db[t + 1], da[t] = db[t]·h[t − 1].
DEVICE void scan_back(const float *a, const float *h, const float *dh, float *da, float *db,
                      Index time, Index channels, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index at = (i / channels * time + time - 1) * channels + i % channels;
    float carried = 0.0f;
    for (Index t = time - 1; t >= 0; t--, at -= channels) {
        float total = dh[at] + carried;
        db[at] = total;
        da[at] = t > 0 ? total * h[at - channels] : 0.0f;
        carried = a[at] * total;
    }
}
EXPORT(linear_scan_gradient,
       (const float *a, const float *h, const float *dh, float *da, float *db, Index time,
        Index channels, Index count),
       scan_back(a, h, dh, da, db, time, channels, count))
