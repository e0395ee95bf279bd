// Causal attention over the `window` latest positions. Tensors [batch, time, heads, width].
//
// A block holds a tile of TILE queries (or keys) of one head against one tile of the other
// after the next; thread (row, column) holds their score, and, of the sums, row `row` and
// every TILE-th channel. blockIdx.y cuts wide heads into slices of channels; each slice
// forms the scores anew. Scores are never stored: the gradient forms them again.

#define TILE 16                  // TILE · TILE threads a block
#define SUMS 8                   // channels that a thread sums
#define CHANNEL_SLICE (TILE * SUMS)

struct Heads {
    Index time, heads, width, window;

    // Elements from one position to the next.
    DEVICE Index stride() const { return heads * width; }
    // The first element of the block's head, where there are `tiles` a head.
    DEVICE Index base(Index tiles) const {
        Index head = (Index)blockIdx.x / tiles;
        return (head / heads * time * heads + head % heads) * width;
    }
    // The same of a tensor [batch, time, heads].
    DEVICE Index narrow_base(Index tiles) const {
        Index head = (Index)blockIdx.x / tiles;
        return head / heads * time * heads + head % heads;
    }
    DEVICE Index tiles() const { return (time + TILE - 1) / TILE; }
    DEVICE bool visible(Index query, Index key) const {
        return query < time && key <= query && query - key < window;
    }
    // The first of the tiles that the queries from `query` on see.
    DEVICE Index first_tile(Index query) const {
        return query < window ? 0 : (query - window + 1) / TILE;
    }
    // One past the last of the tiles that see the keys of a tile from `key` on.
    DEVICE Index end_tile(Index key) const {
        Index rest = time - key; // queries from `key` on
        Index reach = window < rest ? window + TILE - 1 : rest;
        return ((key + (reach < rest ? reach : rest)) + TILE - 1) / TILE;
    }
};

// x[first_x + row] · y[first_y + column] of this thread's row and column; rows beyond the
// time count as zeros.
DEVICE float tile_product(const Heads &shape, const float *x, Index first_x, const float *y,
                          Index first_y) {
    SHARED(float, left, TILE * (TILE + 1));
    SHARED(float, right, TILE * (TILE + 1));
    int row = threadIdx.x / TILE, column = threadIdx.x % TILE;
    float total = 0.0f;
    for (Index channel = 0; channel < shape.width; channel += TILE) {
        bool inside = channel + column < shape.width;
        Index at = channel + column;
        barrier(); // what was loaded before may still be read
        left[row * (TILE + 1) + column] =
            inside && first_x + row < shape.time ? x[(first_x + row) * shape.stride() + at] : 0.0f;
        right[row * (TILE + 1) + column] =
            inside && first_y + row < shape.time ? y[(first_y + row) * shape.stride() + at] : 0.0f;
        barrier();
        for (int i = 0; i < TILE; i++)
            total += left[row * (TILE + 1) + i] * right[column * (TILE + 1) + i];
    }
    return total;
}

// The channels that a thread sums.
DEVICE Index channel_of(int sum) {
    return (Index)blockIdx.y * CHANNEL_SLICE + sum * TILE + threadIdx.x % TILE;
}

// sums += factor · from[position].
DEVICE void add_row(float *sums, const Heads &shape, float factor, const float *from,
                    Index position) {
    for (int sum = 0; sum < SUMS; sum++)
        if (channel_of(sum) < shape.width)
            sums[sum] += factor * from[position * shape.stride() + channel_of(sum)];
}

DEVICE void store_row(const float *sums, const Heads &shape, float scale, float *to,
                      Index position) {
    if (position >= shape.time) return;
    for (int sum = 0; sum < SUMS; sum++)
        if (channel_of(sum) < shape.width)
            to[position * shape.stride() + channel_of(sum)] = sums[sum] * scale;
}

DEVICE void attend(const float *q, const float *k, const float *v, float *out, float *logsumexp,
                   Heads shape, float scale) {
    SHARED(float, weights, TILE * TILE);
    Index tiles = shape.tiles(), base = shape.base(tiles);
    q += base;
    k += base;
    v += base;
    out += base;
    int row = threadIdx.x / TILE, column = threadIdx.x % TILE;
    Index tile = (Index)blockIdx.x % tiles, query = tile * TILE + row;
    float sums[SUMS] = {}, total = 0.0f, maximum = -infinity();
    for (Index keys = shape.first_tile(tile * TILE); keys <= tile; keys++) {
        Index first = keys * TILE;
        float score = tile_product(shape, q, tile * TILE, k, first) * scale;
        bool visible = shape.visible(query, first + column);
        barrier(); // the weights of the tile before may still be read
        weights[threadIdx.x] = visible ? score : -infinity();
        barrier();
        // A row's threads do the same: they hold one maximum.
        float most = maximum;
        for (int i = 0; i < TILE; i++) most = Larger()(weights[row * TILE + i], most);
        barrier();
        weights[threadIdx.x] = visible ? expf(score - most) : 0.0f;
        barrier();
        if (most == -infinity()) continue; // nothing visible so far
        float shrink = expf(maximum - most);
        maximum = most;
        total *= shrink;
        for (int sum = 0; sum < SUMS; sum++) sums[sum] *= shrink;
        for (int i = 0; i < TILE && first + i < shape.time; i++) {
            float weight = weights[row * TILE + i];
            total += weight;
            add_row(sums, shape, weight, v, first + i);
        }
    }
    store_row(sums, shape, 1.0f / total, out, query);
    if (blockIdx.y == 0 && column == 0 && query < shape.time)
        logsumexp[shape.narrow_base(tiles) + query * shape.heads] = maximum + logf(total);
}
EXPORT(causal_attention,
       (const float *q, const float *k, const float *v, float *out, float *logsumexp,
        Heads shape, float scale),
       attend(q, k, v, out, logsumexp, shape, scale))

// along = dout · out of every row of `width`.
EXPORT(attention_along,
       (const float *dout, const float *out, float *along, Index width, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    float total = 0.0f;
    for (Index channel = 0; channel < width; channel++)
        total += dout[i * width + channel] * out[i * width + channel];
    along[i] = total;
})

// What the gradient reads.
struct AttentionGradient {
    const float *q, *k, *v, *logsumexp, *along, *dout;
};

// The weight p of this thread's query and key, and the gradient of their score,
// p·(dout·v − dout·out).
DEVICE void score_gradient(const AttentionGradient &x, const Heads &shape, Index base,
                           Index narrow, float scale, Index rows, Index columns, bool keys,
                           float *weight, float *slope) {
    int row = threadIdx.x / TILE, column = threadIdx.x % TILE;
    Index query = keys ? columns + column : rows + row, key = keys ? rows + row : columns + column;
    float score, through;
    if (keys) {
        score = tile_product(shape, x.k + base, rows, x.q + base, columns);
        through = tile_product(shape, x.v + base, rows, x.dout + base, columns);
    } else {
        score = tile_product(shape, x.q + base, rows, x.k + base, columns);
        through = tile_product(shape, x.dout + base, rows, x.v + base, columns);
    }
    *weight = *slope = 0.0f;
    if (!shape.visible(query, key)) return;
    Index at = narrow + query * shape.heads;
    *weight = expf(score * scale - x.logsumexp[at]);
    *slope = *weight * (through - x.along[at]) * scale;
}

// A block a tile of queries.
DEVICE void attend_back_queries(AttentionGradient x, float *dq, Heads shape, float scale) {
    SHARED(float, slopes, TILE * TILE);
    Index tiles = shape.tiles(), base = shape.base(tiles), narrow = shape.narrow_base(tiles);
    int row = threadIdx.x / TILE;
    Index tile = (Index)blockIdx.x % tiles;
    float sums[SUMS] = {}, weight, slope;
    for (Index keys = shape.first_tile(tile * TILE); keys <= tile; keys++) {
        Index first = keys * TILE;
        score_gradient(x, shape, base, narrow, scale, tile * TILE, first, false, &weight, &slope);
        barrier();
        slopes[threadIdx.x] = slope;
        barrier();
        for (int i = 0; i < TILE && first + i < shape.time; i++)
            add_row(sums, shape, slopes[row * TILE + i], x.k + base, first + i);
    }
    store_row(sums, shape, 1.0f, dq + base, tile * TILE + row);
}
EXPORT(causal_attention_queries, (AttentionGradient x, float *dq, Heads shape, float scale),
       attend_back_queries(x, dq, shape, scale))

// A block a tile of keys.
DEVICE void attend_back_keys(AttentionGradient x, float *dk, float *dv, Heads shape,
                             float scale) {
    SHARED(float, weights, TILE * TILE);
    SHARED(float, slopes, TILE * TILE);
    Index tiles = shape.tiles(), base = shape.base(tiles), narrow = shape.narrow_base(tiles);
    int row = threadIdx.x / TILE;
    Index tile = (Index)blockIdx.x % tiles, end = shape.end_tile(tile * TILE);
    float key_sums[SUMS] = {}, value_sums[SUMS] = {}, weight, slope;
    for (Index queries = tile; queries < end; queries++) {
        Index first = queries * TILE;
        score_gradient(x, shape, base, narrow, scale, tile * TILE, first, true, &weight, &slope);
        barrier();
        weights[threadIdx.x] = weight;
        slopes[threadIdx.x] = slope;
        barrier();
        for (int i = 0; i < TILE && first + i < shape.time; i++) {
            add_row(value_sums, shape, weights[row * TILE + i], x.dout + base, first + i);
            add_row(key_sums, shape, slopes[row * TILE + i], x.q + base, first + i);
        }
    }
    store_row(key_sums, shape, 1.0f, dk + base, tile * TILE + row);
    store_row(value_sums, shape, 1.0f, dv + base, tile * TILE + row);
}
EXPORT(causal_attention_keys,
       (AttentionGradient x, float *dk, float *dv, Heads shape, float scale),
       attend_back_keys(x, dk, dv, shape, scale))
