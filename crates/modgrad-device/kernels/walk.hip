// Walks over grids, one block a sample: `modgrad_ctm::walk`.

#define MOVES 5 // up, down, left, right, stay

struct Best {
    float value;
    Index place; // −1 for none
};

// The later of equals; what is no number is never the larger.
struct Last {
    DEVICE Best operator()(Best x, Best y) const {
        if (x.place < 0 || y.place < 0) return x.place < 0 ? y : x;
        if (x.value == y.value) return x.place > y.place ? x : y;
        return x.value > y.value ? x : y;
    }
};

EXPORT(walk,
       (const float *policy, const float *start, float *out, Index height, Index width,
        Index steps), {
    Index sample = blockIdx.x, cells = height * width;
    policy += sample * cells * MOVES;
    start += sample * cells;
    out += sample * steps * MOVES;
    Best best;
    best.value = 0.0f;
    best.place = -1;
    for (Index k = threadIdx.x; k < cells; k += BLOCK) {
        Best other;
        other.value = start[k];
        other.place = other.value == other.value ? k : -1;
        best = Last()(best, other);
    }
    best = block_fold(best, Last());
    if (threadIdx.x != 0) return;
    // From a first element that is no number on, none is the larger.
    Index cell = start[0] == start[0] ? best.place : 0;
    for (Index step = 0; step < steps; step++) {
        const float *logits = policy + cell * MOVES;
        int move = 0;
        for (int k = 0; k < MOVES; k++) {
            out[step * MOVES + k] = logits[k];
            if (k > 0 && logits[k] >= logits[move]) move = k;
        }
        Index y = cell / width, x = cell % width;
        if (move == 0 && y > 0) cell -= width;
        if (move == 1 && y + 1 < height) cell += width;
        if (move == 2 && x > 0) cell -= 1;
        if (move == 3 && x + 1 < width) cell += 1;
    }
})
