// Rows of tables: looked up, and their gradients summed in a fixed order.

// The sum of the `bag` rows of table [rows, width] that indices [.., bag] name.
template <class I, class Y>
DEVICE void table_rows(const float *table, const I *indices, Y *y, Index rows, Index width,
                       Index bag, Index count, unsigned long long *flag, int check) {
    Index i = thread_index();
    if (i >= count) return;
    Index column = i % width;
    indices += i / width * bag;
    float total = 0.0f;
    for (Index k = 0; k < bag; k++) {
        Index row = checked_index(indices[k], rows, flag, check);
        if (row >= 0) total += table[row * width + column];
    }
    store(y + i, total);
}
#define TABLE_ROWS(i, y)                                                                    \
    EXPORT(table_rows_##i##_##y,                                                            \
           (const float *table, const i *indices, y *to, Index rows, Index width, Index bag, \
            Index count, unsigned long long *flag, int check),                              \
           table_rows(table, indices, to, rows, width, bag, count, flag, check))
TABLE_ROWS(i32, f32)
TABLE_ROWS(i32, bf16)
TABLE_ROWS(u8, f32)
TABLE_ROWS(u8, bf16)

// Only looks at indices, where there is nothing to compute with them.
template <class I>
DEVICE void look(const I *indices, Index bound, Index count, unsigned long long *flag,
                 int check) {
    Index i = thread_index();
    if (i < count) checked_index(indices[i], bound, flag, check);
}
#define LOOK(i)                                                                             \
    EXPORT(look_##i,                                                                        \
           (const i *indices, Index bound, Index count, unsigned long long *flag, int check), \
           look(indices, bound, count, flag, check))
LOOK(i32)
LOOK(u8)

// dx [outer, rows, inner] = the sums of dy [outer, taken, inner] over the ordered positions
// of each row (kernels/order.hip), `bag` positions to one of the taken. blockIdx.y is one of
// gridDim.y parts of each row's positions, which fold_parts adds up.
template <class D>
DEVICE void sum_ordered(const D *dy, const int *positions, const int *starts, float *dx,
                        Index rows, Index taken, Index inner, Index bag, int add, Index count) {
    Index i = thread_index();
    if (i >= count) return;
    Index column = i % inner, row = i / inner % rows, outer = i / inner / rows;
    Index start = starts[row], length = starts[row + 1] - start;
    Index first = start + length * blockIdx.y / gridDim.y;
    Index end = start + length * (blockIdx.y + 1) / gridDim.y;
    dy += outer * taken * inner + column;
    dx += blockIdx.y * count + i;
    float total = add ? *dx : 0.0f;
    for (Index k = first; k < end; k++) total += to_float(dy[positions[k] / bag * inner]);
    *dx = total;
}
#define SUM_ORDERED(d)                                                                      \
    EXPORT(sum_ordered_##d,                                                                 \
           (const d *dy, const int *positions, const int *starts, float *dx, Index rows,    \
            Index taken, Index inner, Index bag, int add, Index count),                     \
           sum_ordered(dy, positions, starts, dx, rows, taken, inner, bag, add, count))
SUM_ORDERED(f32)
SUM_ORDERED(bf16)

EXPORT(fold_parts, (const float *parts, float *to, Index parts_count, int add, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    float total = add ? to[i] : 0.0f;
    for (Index part = 0; part < parts_count; part++) total += parts[part * count + i];
    to[i] = total;
})
