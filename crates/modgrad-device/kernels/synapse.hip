// Layers of a thought's synapse, after their products: a block a row. Row r is tick
// first + r / B of sample r % B; products are kept [B, ticks, columns of all layers].
//
// Of depth 1 a layer is LayerNorm(value·σ(gate)) of products (value, gate); deeper it is
// SiLU(LayerNorm(product)), and upwards LayerNorm(that + what came down).

// `Layer` of modgrad_device::ops::thought.
struct Layer {
    const float *norm_weight, *norm_bias;
    const float *skip_weight, *skip_bias; // null but upwards
    Index width, gated;
    // Where its products stand among those kept.
    Index batch, ticks, columns, at, first;

    DEVICE Index kept() const {
        Index row = blockIdx.x;
        return (row % batch * ticks + first + row / batch) * columns + at;
    }
    DEVICE Index products() const { return gated ? 2 * width : width; }
    // What is normalised.
    DEVICE float value(const float *u, Index i) const {
        return gated ? u[i] * sigmoid(u[i + width]) : u[i];
    }
};

struct Normal {
    float mean, scale;
};

#define SYNAPSE_EPSILON 1e-5f

// Of a row's values; of the products `u` where `row` is null.
DEVICE Normal normal_of(const Layer &layer, const float *u, const float *row) {
    Normal normal;
    float sum = 0.0f, squares = 0.0f;
    for (Index i = threadIdx.x; i < layer.width; i += BLOCK)
        sum += row ? row[i] : layer.value(u, i);
    normal.mean = block_sum(sum) / (float)layer.width;
    for (Index i = threadIdx.x; i < layer.width; i += BLOCK) {
        float off = (row ? row[i] : layer.value(u, i)) - normal.mean;
        squares += off * off;
    }
    normal.scale = 1.0f / sqrtf(block_sum(squares) / (float)layer.width + SYNAPSE_EPSILON);
    return normal;
}

DEVICE float normed(const Normal &normal, float value, const float *weight, const float *bias,
                    Index i) {
    return (value - normal.mean) * normal.scale * weight[i] + bias[i];
}

// From `product` [rows, products] and `bias`, whose sum is kept in `saved`, or, where it is
// null, from what is kept: out [rows, width], and upwards, with what came `down`, the sum
// before the last norm [rows, width].
EXPORT(synapse_layer,
       (Layer layer, const float *product, const float *bias, float *saved, const float *down,
        float *sum, float *out), {
    Index start = (Index)blockIdx.x * layer.width;
    float *u = saved + layer.kept();
    if (product) {
        product += (Index)blockIdx.x * layer.products();
        for (Index i = threadIdx.x; i < layer.products(); i += BLOCK) u[i] = product[i] + bias[i];
        barrier();
    }
    Normal normal = normal_of(layer, u, nullptr);
    out += start;
    if (!layer.skip_weight) {
        for (Index i = threadIdx.x; i < layer.width; i += BLOCK) {
            float y = normed(normal, layer.value(u, i), layer.norm_weight, layer.norm_bias, i);
            out[i] = layer.gated ? y : y * sigmoid(y);
        }
        return;
    }
    sum += start;
    down += start;
    for (Index i = threadIdx.x; i < layer.width; i += BLOCK) {
        float y = normed(normal, u[i], layer.norm_weight, layer.norm_bias, i);
        sum[i] = y * sigmoid(y) + down[i];
    }
    normal = normal_of(layer, u, sum);
    for (Index i = threadIdx.x; i < layer.width; i += BLOCK)
        out[i] = normed(normal, sum[i], layer.skip_weight, layer.skip_bias, i);
})

// What the adjoint of a norm needs of a whole row.
struct Means {
    float plain, along;
};

struct AddMeans {
    DEVICE Means operator()(Means a, Means b) const {
        a.plain += b.plain;
        a.along += b.along;
        return a;
    }
};

DEVICE Means block_means(Means means, Index width) {
    means = block_fold(means, AddMeans());
    means.plain /= (float)width;
    means.along /= (float)width;
    return means;
}

// dproduct [B, products] of one tick from dout [B, width], and upwards what goes `across`
// to the layer downwards. norms [4, B, width] gain the sample's part of the gradients of
// weight, bias, and those of the skip.
EXPORT(synapse_layer_adjoint,
       (Layer layer, const float *saved, const float *sum, const float *dout, float *dproduct,
        float *across, float *norms), {
    Index width = layer.width, start = (Index)blockIdx.x * width, part = layer.batch * width;
    const float *u = saved + layer.kept();
    dout += start;
    norms += start;
    dproduct += (Index)blockIdx.x * layer.products();
    if (layer.skip_weight) {
        sum += start;
        across += start;
        Normal normal = normal_of(layer, u, sum);
        Means means = {0.0f, 0.0f};
        for (Index i = threadIdx.x; i < width; i += BLOCK) {
            float value = (sum[i] - normal.mean) * normal.scale;
            float d = dout[i] * layer.skip_weight[i];
            norms[2 * part + i] += dout[i] * value;
            norms[3 * part + i] += dout[i];
            means.plain += d;
            means.along += d * value;
        }
        means = block_means(means, width);
        for (Index i = threadIdx.x; i < width; i += BLOCK) {
            float value = (sum[i] - normal.mean) * normal.scale;
            float d = dout[i] * layer.skip_weight[i];
            across[i] = normal.scale * (d - means.plain - value * means.along);
        }
        dout = across; // each thread reads what it wrote
    }
    Normal normal = normal_of(layer, u, nullptr);
    Means means = {0.0f, 0.0f};
    for (Index i = threadIdx.x; i < width; i += BLOCK) {
        float value = (layer.value(u, i) - normal.mean) * normal.scale, d = dout[i];
        if (!layer.gated) {
            float y = value * layer.norm_weight[i] + layer.norm_bias[i], open = sigmoid(y);
            d *= open * (1.0f + y * (1.0f - open));
        }
        norms[i] += d * value;
        norms[part + i] += d;
        dproduct[i] = d * layer.norm_weight[i];
        means.plain += dproduct[i];
        means.along += dproduct[i] * value;
    }
    means = block_means(means, width);
    for (Index i = threadIdx.x; i < width; i += BLOCK) {
        float value = (layer.value(u, i) - normal.mean) * normal.scale;
        float d = normal.scale * (dproduct[i] - means.plain - value * means.along);
        if (layer.gated) {
            float open = sigmoid(u[i + width]);
            dproduct[i] = d * open;
            dproduct[i + width] = d * u[i] * open * (1.0f - open);
        } else {
            dproduct[i] = d;
        }
    }
})
