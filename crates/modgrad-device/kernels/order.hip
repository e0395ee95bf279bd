// Positions in the order of their indices, those of equal indices in their own order: what
// sums of rows with a fixed order need. Keys are what checked_index makes of indices.

// Short lists, in one launch: a position's place is how many come before it.
template <class I>
DEVICE void order_by_counting(const I *indices, int *keys, int *positions, Index bound,
                              Index count, unsigned long long *flag, int check) {
    Index i = thread_index();
    if (i >= count) return;
    Index key = checked_index(indices[i], bound, flag, check), place = 0;
    if (key < 0) key = 0;
    for (Index k = 0; k < count; k++) {
        Index other = indices[k];
        if (other < 0 || other >= bound) other = 0;
        place += other < key || (other == key && k < i) ? 1 : 0;
    }
    keys[place] = (int)key;
    positions[place] = (int)i;
}

template <class I>
DEVICE void order_begin(const I *indices, int *keys, int *positions, Index bound, Index count,
                        unsigned long long *flag, int check) {
    Index i = thread_index();
    if (i >= count) return;
    Index key = checked_index(indices[i], bound, flag, check);
    keys[i] = key < 0 ? 0 : (int)key;
    positions[i] = (int)i;
}

#define ORDER(i)                                                                            \
    EXPORT(order_by_counting_##i,                                                           \
           (const i *indices, int *keys, int *positions, Index bound, Index count,          \
            unsigned long long *flag, int check),                                           \
           order_by_counting(indices, keys, positions, bound, count, flag, check))          \
    EXPORT(order_begin_##i,                                                                 \
           (const i *indices, int *keys, int *positions, Index bound, Index count,          \
            unsigned long long *flag, int check),                                           \
           order_begin(indices, keys, positions, bound, count, flag, check))
ORDER(i32)
ORDER(u8)

// Long lists, by one digit after the other, the lowest first. A block has ORDER_ITEMS
// neighbours a thread; `starts` [ORDER_DIGITS, blocks] holds how many of its keys have a
// digit and then, added up, where the first of them goes.
#define ORDER_DIGITS 16
#define ORDER_ITEMS 8

DEVICE int digit_of(int key, int shift) { return (key >> shift) & (ORDER_DIGITS - 1); }

EXPORT(order_count, (const int *keys, int *starts, int shift, Index count), {
    SHARED(int, counts, ORDER_DIGITS * BLOCK);
    int thread = threadIdx.x;
    for (int digit = 0; digit < ORDER_DIGITS; digit++) counts[digit * BLOCK + thread] = 0;
    Index first = thread_index() * ORDER_ITEMS;
    for (Index i = first; i < first + ORDER_ITEMS && i < count; i++)
        counts[digit_of(keys[i], shift) * BLOCK + thread]++;
    barrier();
    if (thread < ORDER_DIGITS) {
        int total = 0;
        for (int k = 0; k < BLOCK; k++) total += counts[thread * BLOCK + k];
        starts[(Index)thread * gridDim.x + blockIdx.x] = total;
    }
})

// One block: each of `count` becomes the sum of those before it.
EXPORT(order_add, (int *starts, Index count), {
    SHARED(int, sums, BLOCK);
    Index length = (count + BLOCK - 1) / BLOCK, first = (Index)threadIdx.x * length;
    Index end = first + length < count ? first + length : count;
    int total = 0;
    for (Index i = first; i < end; i++) total += starts[i];
    sums[threadIdx.x] = total;
    barrier();
    total = 0;
    for (int k = 0; k < (int)threadIdx.x; k++) total += sums[k];
    for (Index i = first; i < end; i++) {
        int here = starts[i];
        starts[i] = total;
        total += here;
    }
})

EXPORT(order_place,
       (const int *keys, const int *positions, const int *starts, int *new_keys,
        int *new_positions, int shift, Index count), {
    SHARED(int, places, ORDER_DIGITS * BLOCK);
    int thread = threadIdx.x;
    for (int digit = 0; digit < ORDER_DIGITS; digit++) places[digit * BLOCK + thread] = 0;
    Index first = thread_index() * ORDER_ITEMS;
    for (Index i = first; i < first + ORDER_ITEMS && i < count; i++)
        places[digit_of(keys[i], shift) * BLOCK + thread]++;
    barrier();
    if (thread < ORDER_DIGITS) {
        int place = starts[(Index)thread * gridDim.x + blockIdx.x];
        for (int k = 0; k < BLOCK; k++) {
            int here = places[thread * BLOCK + k];
            places[thread * BLOCK + k] = place;
            place += here;
        }
    }
    barrier();
    for (Index i = first; i < first + ORDER_ITEMS && i < count; i++) {
        int place = places[digit_of(keys[i], shift) * BLOCK + thread]++;
        new_keys[place] = keys[i];
        new_positions[place] = positions[i];
    }
})

// starts[r]: the first of the ordered keys that is r or more; `rows` + 1 of them.
EXPORT(order_starts, (const int *keys, int *starts, Index rows, Index count), {
    Index row = thread_index();
    if (row > rows) return;
    Index low = 0, high = count;
    while (low < high) {
        Index middle = (low + high) / 2;
        if (keys[middle] < row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    starts[row] = (int)low;
})
