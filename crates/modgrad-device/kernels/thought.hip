// What joins the stages of a thought: rows and traces, moved from one layout to another. A
// thread an element. Kept are [B, ticks, ..]; at work rows go by ticks, [ticks, B, ..].

// x [rows, width + neurons] = (what was read, state): row r is tick first + r / B of sample
// r % B. What was read stands in rows of [.., width], `by_sample` and `by_tick` elements
// from one to the next. The state of tick t is that before it.
EXPORT(thought_join,
       (const float *read, Index by_sample, Index by_tick, const float *start,
        const float *states, float *x, Index batch, Index ticks, Index width, Index neurons,
        Index first, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index column = i % (width + neurons), row = i / (width + neurons);
    Index sample = row % batch, tick = row / batch;
    if (column < width) {
        x[i] = read[sample * by_sample + tick * by_tick + column];
        return;
    }
    tick += first;
    x[i] = (tick == 0 ? start[sample * neurons + column - width]
                      : states[(sample * ticks + tick - 1) * neurons + column - width]);
})

// dx [B, width + neurons] taken apart: dz [B, neurons], and dread [B, width], which is added
// to where `add`.
EXPORT(thought_split,
       (const float *dx, float *dread, float *dz, Index width, Index neurons, int add,
        Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index column = i % (width + neurons), sample = i / (width + neurons);
    if (column < width) {
        Index at = sample * width + column;
        dread[at] = (add ? dread[at] : 0.0f) + dx[i];
    } else {
        dz[sample * neurons + column - width] = dx[i];
    }
})

// Rows [B, width] kept for ticks `first` to below `first + times`, from column `at` on of rows
// of `columns`.
EXPORT(thought_keep,
       (const float *rows, float *kept, Index ticks, Index columns, Index at, Index width,
        Index first, Index times, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index column = i % width, tick = i / width % times, sample = i / width / times;
    kept[(sample * ticks + first + tick) * columns + at + column] = rows[sample * width + column];
})

// The other way round, for all ticks: rows [ticks, B, width].
EXPORT(thought_recall,
       (const float *kept, float *rows, Index batch, Index ticks, Index columns, Index at,
        Index width, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index column = i % width, sample = i / width % batch, tick = i / width / batch;
    rows[i] = kept[(sample * ticks + tick) * columns + at + column];
})

// Between traces [B, N, M] and slots [M, B, N].
EXPORT(thought_slots, (const float *trace, float *slots, Index memory, Index row, Index count), {
    Index i = thread_index();
    if (i < count) slots[i] = trace[i % row * memory + i / row];
})
EXPORT(thought_trace, (const float *slots, float *trace, Index memory, Index row, Index count), {
    Index i = thread_index();
    if (i < count) trace[i] = slots[i % memory * row + i / memory];
})
