// Contexts of bytes: tokens [windows, time], each window by itself. The hashes are those of
// modgrad_ffn, bit for bit.

typedef unsigned long long Word;

// out [windows, time, length]: byte t−j, or 256 before the window.
EXPORT(byte_context,
       (const unsigned char *tokens, int *out, Index time, Index length, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index position = i / length, back = i % length;
    out[i] = back <= position % time ? tokens[position - back] : 256;
})

#define GOLDEN 0x9e3779b97f4a7c15ull
DEVICE Word hash_mix(Word word) {
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebull;
    return word ^ (word >> 31);
}
DEVICE Word absorb(Word state, Word word) { return hash_mix(state ^ word) + GOLDEN; }
DEVICE Word absorb_byte(Word state, Word byte) {
    state = (state ^ (byte + 1)) * GOLDEN;
    return state ^ (state >> 32);
}
// hash·rows / 2^64, for rows below 2^32.
DEVICE Index reduce_hash(Word hash, Word rows) {
    return (Index)(((hash >> 32) * rows + (((hash & 0xffffffffull) * rows) >> 32)) >> 32);
}

// Some of an op's slots; `modgrad_device::ops::contexts::Slots`.
#define MOST_SLOTS 16
struct Slots {
    Word seeds[MOST_SLOTS];
    int what[MOST_SLOTS]; // an order, or the number of a kind
};

// out [windows, time, slots]: a thread a position and one of the `here` slots from `first` on.
EXPORT(ngram_hash,
       (const unsigned char *tokens, int *out, Slots of, Index first, Index here, Index slots,
        Index rows, Index time, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index position = i / here, slot = i % here, available = position % time + 1;
    Index order = of.what[slot], missing = order > available ? order - available : 0;
    Word state = of.seeds[slot] ^ (Word)missing * 0xd6e8feb86659fd93ull;
    for (Index word = 0; word < order; word += 8) {
        Word bytes = 0;
        for (Index back = word; back < word + 8 && back < order && back < available; back++)
            bytes |= (Word)tokens[position - back] << (back % 8 * 8);
        state = absorb(state, bytes);
    }
    out[position * slots + first + slot] = (int)((first + slot) * rows + reduce_hash(state, rows));
})

DEVICE bool is_letter(Word byte) {
    Word folded = byte | 0x20;
    return (folded >= 'a' && folded <= 'z') || (byte >= '0' && byte <= '9') || byte >= 0x80;
}

DEVICE Word column_bucket(Word column) {
    if (column < 4) return column;
    if (column < 32) return 3 + column / 4;
    return column < 128 ? 9 + column / 16 : 17;
}

// What a window has shown so far; zero for "nothing yet". `modgrad_ffn::word::State`.
struct Words {
    Word exact, folded, previous, before_previous, separator, line_start, column;
    bool line_ended;

    DEVICE void advance(Word byte) {
        if (is_letter(byte)) {
            exact = absorb_byte(exact, byte);
            folded = absorb_byte(folded, byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
        } else {
            if (folded != 0) {
                before_previous = previous;
                previous = folded;
            }
            exact = 0;
            folded = 0;
            separator = byte + 1;
        }
        if (line_ended) {
            column = 0;
            line_start = 0;
        }
        if (column < 3) line_start |= byte << (8 * column);
        column++;
        line_ended = byte == '\n';
    }

    DEVICE Word hash(int kind, Word seed) const {
        switch (kind) {
        case 0: return hash_mix(seed ^ exact);
        case 1: return hash_mix(seed ^ folded);
        case 2: return absorb(absorb(seed, previous), folded);
        case 3: return absorb(absorb(absorb(seed, before_previous), previous), folded);
        case 4: return absorb(absorb(seed, before_previous), folded);
        case 5: return absorb(absorb(seed, separator), folded);
        default: return hash_mix(seed ^ (line_start | column_bucket(column) << 24));
        }
    }
};

// The same for words: a thread a window and slot.
EXPORT(word_hash,
       (const unsigned char *tokens, int *out, Slots of, Index first, Index here, Index slots,
        Index rows, Index time, Index count), {
    Index i = thread_index();
    if (i >= count) return;
    Index window = i / here, slot = i % here;
    int kind = of.what[slot];
    Word seed = of.seeds[slot];
    Words words = {0, 0, 0, 0, 0, 0, 0, false};
    for (Index position = window * time; position < (window + 1) * time; position++) {
        words.advance(tokens[position]);
        Index hash = reduce_hash(words.hash(kind, seed), rows);
        out[position * slots + first + slot] = (int)((first + slot) * rows + hash);
    }
})
