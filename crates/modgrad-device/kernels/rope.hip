// Rotary positions: channels i and i + rotated/2 turn by position · base^(−2i/rotated).

// table [time, rotated/2, 2]: cosines and sines, from angles in f64, since f32 loses the
// place of late positions.
EXPORT(rope_angles, (float *table, Index half, float base, int inverse, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    double frequency = pow((double)base, -(double)(i % half) / (double)half);
    double angle = (inverse ? -1.0 : 1.0) * (double)(i / half) * frequency;
    table[2 * i] = (float)cos(angle);
    table[2 * i + 1] = (float)sin(angle);
})

// x and y [.., time, heads, width]; one thread an element.
DEVICE void rope_turn(const float *x, const float *table, float *y, Index time, Index heads,
                      Index width, Index half, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index channel = i % width;
    if (channel >= 2 * half) {
        y[i] = x[i];
        return;
    }
    Index position = i / (width * heads) % time;
    const float *angle = table + 2 * (position * half + channel % half);
    y[i] = channel < half ? x[i] * angle[0] - x[i + half] * angle[1]
                          : x[i - half] * angle[1] + x[i] * angle[0];
}
EXPORT(rope,
       (const float *x, const float *table, float *y, Index time, Index heads, Index width,
        Index half, Index count),
       rope_turn(x, table, y, time, heads, width, half, count))
