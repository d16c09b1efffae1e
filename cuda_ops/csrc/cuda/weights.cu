// gate = cumax(start) (1 - cumax(end)),  a_k = gain_k / J sum_j outer(gate_h, gate_w),
// w_k = a_k prod_{l>k} (1 - a_l),  keep = prod_k (1 - a_k)
#include "weights.cuh"

namespace sc_layers {
namespace {

template <typename A>
struct WeightArguments {
  const A* logits_h;
  const A* logits_w;
  const A* gain;
  Weights<A> weights;
  int blocks;  // of a sample
};

// A warp makes a gate.
template <typename A>
__global__ void __launch_bounds__(kThreads) gates(const __grid_constant__ WeightArguments<A> args) {
  const Weights<A>& weights = args.weights;
  const Work work(args.blocks);
  const int bands = weights.codes * weights.rects, index = work.index / kWarp;
  if (index >= 2 * bands) return;
  const bool vertical = index < bands;
  const int64_t at = static_cast<int64_t>(work.sample) * bands + (vertical ? index : index - bands);
  const int length = vertical ? weights.height : weights.width;
  A* result = (vertical ? weights.gates_h : weights.gates_w) + at * length;
  const Band<A> band((vertical ? args.logits_h : args.logits_w) + 2 * at * length, length, threadIdx.x % kWarp);
  band.walk([&](int i, A, A, A cumax_start, A cumax_end) {
    if (i < length) store(result + i, cumax_start * (1 - cumax_end));
  });
}

template <typename A>
struct alignas(4 * sizeof(A)) Four {
  A value[4];
};

// A thread takes four neighbouring pixels, and their codes from the last to the first. (ptxas, left to itself, spills
// float64 for sm_100 to fit four blocks on a multiprocessor.)
template <typename A>
__global__ void __launch_bounds__(kThreads, sizeof(A) == 8 ? 3 : 0)
    blend_weights(const __grid_constant__ WeightArguments<A> args) {
  const Weights<A>& weights = args.weights;
  const Work work(args.blocks);
  const int64_t sample = work.sample;
  const int pixel = 4 * work.index, width = weights.width;
  if (pixel >= weights.stride) return;
  const bool together = width % 4 == 0 && pixel < weights.pixels;  // all exist, in one row
  int row[4], column[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int at = min(pixel + e, weights.pixels - 1);
    row[e] = at / width;
    column[e] = at - row[e] * width;
  }
  A* result = weights.planes + sample * (weights.codes + 1) * weights.stride + pixel;
  const A inverse = A(1) / weights.rects;
  Four<A> keep;
#pragma unroll
  for (int e = 0; e < 4; ++e) keep.value[e] = pixel + e < weights.pixels ? 1 : 0;
#pragma unroll 2
  for (int code = weights.codes - 1; code >= 0; --code) {
    const int64_t band = (sample * weights.codes + code) * weights.rects;
    const A* gates_h = weights.gates_h + band * weights.height;
    const A* gates_w = weights.gates_w + band * width;
    A mask[4] = {};
#pragma unroll 4
    for (int rect = 0; rect < weights.rects; ++rect, gates_h += weights.height, gates_w += width) {
      if (together) {
        const A gate = load(gates_h + row[0]);
        const Four<A> across = load(reinterpret_cast<const Four<A>*>(gates_w + column[0]));
#pragma unroll
        for (int e = 0; e < 4; ++e) mask[e] += gate * across.value[e];
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) mask[e] += load(gates_h + row[e]) * load(gates_w + column[e]);
      }
    }
    const A factor = args.gain == nullptr ? inverse : load(args.gain + code) * inverse;
    Four<A> weight;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      mask[e] *= factor;
      weight.value[e] = mask[e] * keep.value[e];
      keep.value[e] *= 1 - mask[e];
      if (weights.masks != nullptr && pixel + e < weights.pixels) {
        store(weights.masks + (sample * weights.codes + code) * weights.pixels + pixel + e, mask[e]);
      }
    }
    store(reinterpret_cast<Four<A>*>(result + static_cast<int64_t>(code) * weights.stride), weight);
  }
  store(reinterpret_cast<Four<A>*>(result + static_cast<int64_t>(weights.codes) * weights.stride), keep);
}

}  // namespace

template <typename A>
const char* make_weights(const Group& group, const Weights<A>& weights, void* stream) {
  WeightArguments<A> args{numbers<A>(group.gate_logits_h), numbers<A>(group.gate_logits_w), numbers<A>(group.mask_gain),
                          weights, blocks_for(2 * weights.codes * weights.rects * kWarp)};
  const char* error = launch(gates<A>, weights.samples * args.blocks, 0, stream, args);
  if (error != nullptr) return error;
  args.blocks = blocks_for(weights.stride / 4);
  return launch(blend_weights<A>, weights.samples * args.blocks, 0, stream, args);
}

template const char* make_weights(const Group&, const Weights<float>&, void*);
template const char* make_weights(const Group&, const Weights<double>&, void*);

}  // namespace sc_layers
