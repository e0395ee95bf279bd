// Causal convolution along time, each channel by itself: y[t] = Σ_j weight[j]·x[t − j].
// x, y [batch, time, channels]; weight [taps, channels]; one thread an element.

DEVICE void convolve(const float *x, const float *weight, float *y, Index time, Index channels,
                     Index taps, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index t = i / channels % time, channel = i % channels;
    Index most = t + 1 < taps ? t + 1 : taps;
    float total = 0.0f;
    for (Index j = 0; j < most; j++) total += weight[j * channels + channel] * x[i - j * channels];
    y[i] = total;
}
EXPORT(causal_convolution,
       (const float *x, const float *weight, float *y, Index time, Index channels, Index taps,
        Index count),
       convolve(x, weight, y, time, channels, taps, count))

DEVICE void convolve_back(const float *weight, const float *dy, float *dx, Index time,
                          Index channels, Index taps, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index t = i / channels % time, channel = i % channels;
    Index most = time - t < taps ? time - t : taps;
    float total = 0.0f;
    for (Index j = 0; j < most; j++) total += weight[j * channels + channel] * dy[i + j * channels];
    dx[i] = total;
}
EXPORT(causal_convolution_input,
       (const float *weight, const float *dy, float *dx, Index time, Index channels, Index taps,
        Index count),
       convolve_back(weight, dy, dx, time, channels, taps, count))

// The terms of dweight: a thread a tap and channel, blockIdx.y a chunk of `length` of the
// `rows` = batch·time; parts [chunks, taps, channels], which reductions.hip adds up.
DEVICE void convolution_weight(const float *x, const float *dy, float *parts, Index rows,
                               Index time, Index channels, Index taps, Index length) {
    Index i = thread_index();
    if (i >= taps * channels) return;
    Index tap = i / channels, channel = i % channels;
    Index first = (Index)blockIdx.y * length;
    Index end = first + length < rows ? first + length : rows;
    float total = 0.0f;
    for (Index row = first; row < end; row++)
        if (row % time >= tap) total += dy[row * channels + channel] * x[(row - tap) * channels + channel];
    parts[(Index)blockIdx.y * taps * channels + i] = total;
}
EXPORT(causal_convolution_weight,
       (const float *x, const float *dy, float *parts, Index rows, Index time, Index channels,
        Index taps, Index length),
       convolution_weight(x, dy, parts, rows, time, channels, taps, length))
