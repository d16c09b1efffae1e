// Gates: from logits to cumax(start) * (1 - cumax(end)) (Eq. 3), and from the gradients of the blend weights back.
#pragma once

#include "tile.cuh"

namespace sc_layers {

template <typename A>
struct GateArguments {
  const A* logits_h;  // [n, k, j, 2, h], the pair is (start, end)
  const A* logits_w;
  const A* gain;  // [k] or null
  A* gates_h;     // [n, k, j, h]
  A* gates_w;
  const A* grad_weights;  // [n, groups, k + 1, h w]
  A* grad_logits_h;
  A* grad_logits_w;
  A* grad_gain_each;  // [n, k], null without a gain
  A* grad_gain;       // [k]
  int groups;
  int strip_rows, strip_columns;
  Sizes sizes;
};

__device__ inline float exponential(float value) { return expf(value); }
__device__ inline double exponential(double value) { return exp(value); }

// A warp's view of one pair of softmaxes along one side.
template <typename A>
struct Band {
  const A* start;
  const A* end;
  int length, lane;
  A start_max, end_max, start_scale, end_scale;

  __device__ Band(const A* logits, int length_, int lane_)
      : start(logits), end(logits + length_), length(length_), lane(lane_) {
    softmax_of(start, start_max, start_scale);
    softmax_of(end, end_max, end_scale);
  }

  __device__ void softmax_of(const A* logits, A& largest, A& scale) const {
    largest = load(logits);
    for (int i = lane; i < length; i += kWarp) {
      const A value = load(logits + i);
      largest = value > largest ? value : largest;
    }
    largest = warp_max(largest);
    A sum = 0;
    for (int i = lane; i < length; i += kWarp) sum += exponential(load(logits + i) - largest);
    scale = A(1) / warp_sum(sum);
  }

  // Calls visit(i, p_start, p_end, cumax_start, cumax_end) for every position, 32 at a time and in order; all lanes
  // call it, those beyond the end with zeros.
  template <typename Visit>
  __device__ void walk(Visit visit) const {
    A start_sum = 0, end_sum = 0;
    for (int first = 0; first < length; first += kWarp) {
      const int i = first + lane;
      const bool inside = i < length;
      const A p_start = inside ? exponential(load(start + i) - start_max) * start_scale : A(0);
      const A p_end = inside ? exponential(load(end + i) - end_max) * end_scale : A(0);
      const A cumax_start = start_sum + warp_inclusive_scan(p_start, lane);
      const A cumax_end = end_sum + warp_inclusive_scan(p_end, lane);
      visit(i, p_start, p_end, cumax_start, cumax_end);
      start_sum = __shfl_sync(kAllLanes, cumax_start, kWarp - 1);
      end_sum = __shfl_sync(kAllLanes, cumax_end, kWarp - 1);
    }
  }
};

// All gates of both sides; a warp makes one.
template <typename A>
__global__ void __launch_bounds__(kThreads) make_gates(const __grid_constant__ GateArguments<A> args) {
  const Sizes& sizes = args.sizes;
  const int lane = threadIdx.x % kWarp;
  const int64_t bands = sizes.samples * sizes.codes * sizes.rects;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (kThreads / kWarp);
  int64_t index = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  for (; index < 2 * bands; index += step) {
    const bool vertical = index < bands;
    const int64_t at = vertical ? index : index - bands;
    const int length = vertical ? sizes.height : sizes.width;
    A* gates = (vertical ? args.gates_h : args.gates_w) + at * length;
    const Band<A> band((vertical ? args.logits_h : args.logits_w) + 2 * at * length, length, lane);
    band.walk([&](int i, A, A, A cumax_start, A cumax_end) {
      if (i < length) store(gates + i, cumax_start * (1 - cumax_end));
    });
  }
}

// dL/da_k of one pixel. Applying the codes in order to a feature whose gradients are (d keep, d w_1, ..) gives
// r_k = r_{k-1} (1 - a_k) + a_k d w_k from r_0 = d keep, so dL/da_k = (d w_k - r_{k-1}) prod_{l>k} (1 - a_l).
template <typename A, bool kOnChip>
__device__ inline A mask_gradient(const GateArguments<A>& args, const Bands<A, kOnChip>& bands, const A* factors,
                                  int64_t sample, int code, int row, int column) {
  const Sizes& sizes = args.sizes;
  const int64_t pixel = static_cast<int64_t>(row) * sizes.width + column;
  const auto grad_weight = [&](int index) {
    A sum = 0;
    for (int group = 0; group < args.groups; ++group) {
      const int64_t plane = (sample * args.groups + group) * (sizes.codes + 1) + index;
      sum += load(args.grad_weights + plane * sizes.pixels + pixel);
    }
    return sum;
  };
  A mixed = grad_weight(sizes.codes);
  for (int before = 0; before < code; ++before) {
    A mask[1];
    mask_of(bands, factors[before], sizes.rects, before, row, column, mask);
    mixed = mixed * (1 - mask[0]) + mask[0] * grad_weight(before);
  }
  A gradient = grad_weight(code) - mixed;
  for (int after = code + 1; after < sizes.codes; ++after) {
    A mask[1];
    mask_of(bands, factors[after], sizes.rects, after, row, column, mask);
    gradient *= 1 - mask[0];
  }
  return gradient;
}

// d gate_h = sum over columns of d a * gate_w, and d gate_w likewise, both without the factor gain_k / J. They are
// summed up strip by strip in what will hold the gradients of the start logits; every entry has one thread or warp.
template <typename A, bool kOnChip>
__device__ inline void contract_masks(const GateArguments<A>& args, const Bands<A, kOnChip>& bands, const A* factors,
                                      A* masks, int64_t sample, int code, A* grad_h, A* grad_w) {
  const Sizes& sizes = args.sizes;
  const int lane = threadIdx.x % kWarp;
  for (int top = 0; top < sizes.height; top += args.strip_rows) {
    const int rows = min(args.strip_rows, sizes.height - top);
    for (int left = 0; left < sizes.width; left += args.strip_columns) {
      const int columns = min(args.strip_columns, sizes.width - left);
      for (int i = threadIdx.x; i < rows * columns; i += kThreads) {
        masks[i] = mask_gradient(args, bands, factors, sample, code, top + i / columns, left + i % columns);
      }
      __syncthreads();
      for (int unit = threadIdx.x / kWarp; unit < rows * sizes.rects; unit += kThreads / kWarp) {
        const int row = unit / sizes.rects, rect = unit % sizes.rects;
        A sum = 0;
        for (int i = lane; i < columns; i += kWarp) {
          sum += masks[row * columns + i] * bands.one(bands.columns(code * sizes.rects + rect, left + i));
        }
        sum = warp_sum(sum);
        A* total = grad_h + static_cast<int64_t>(rect) * 2 * sizes.height + top + row;
        if (lane == 0) store(total, left == 0 ? sum : load(total) + sum);
      }
      for (int unit = threadIdx.x; unit < columns * sizes.rects; unit += kThreads) {
        const int rect = unit / columns, column = unit % columns;
        A sum = 0;
        for (int row = 0; row < rows; ++row) {
          sum += masks[row * columns + column] * bands.one(bands.rows(code * sizes.rects + rect, top + row));
        }
        A* total = grad_w + static_cast<int64_t>(rect) * 2 * sizes.width + left + column;
        store(total, top == 0 ? sum : load(total) + sum);
      }
      __syncthreads();
    }
  }
}

// From d gate, which lies in `grad` where the gradient of the start logits goes, to both logits. With S and E the two
// cumulative sums, d p_i = sum_{t>=i} dS_t, and sum_m p_m d p_m = sum_t dS_t S_t.
template <typename A>
__device__ inline void differentiate_band(const Band<A>& band, A* grad, A factor) {
  A start_total = 0, start_dot = 0, end_total = 0, end_dot = 0;
  band.walk([&](int i, A, A, A cumax_start, A cumax_end) {
    const A gate = i < band.length ? load(grad + i) * factor : A(0);
    start_total += gate * (1 - cumax_end);
    start_dot += gate * (1 - cumax_end) * cumax_start;
    end_total -= gate * cumax_start;
    end_dot -= gate * cumax_start * cumax_end;
  });
  start_total = warp_sum(start_total);
  start_dot = warp_sum(start_dot);
  end_total = warp_sum(end_total);
  end_dot = warp_sum(end_dot);
  A start_before = 0, end_before = 0;
  band.walk([&](int i, A p_start, A p_end, A cumax_start, A cumax_end) {
    const A gate = i < band.length ? load(grad + i) * factor : A(0);
    const A start_step = gate * (1 - cumax_end), end_step = -gate * cumax_start;
    const A start_sum = start_before + warp_inclusive_scan(start_step, band.lane);
    const A end_sum = end_before + warp_inclusive_scan(end_step, band.lane);
    if (i < band.length) {
      store(grad + i, p_start * (start_total - (start_sum - start_step) - start_dot));
      store(grad + band.length + i, p_end * (end_total - (end_sum - end_step) - end_dot));
    }
    start_before = __shfl_sync(kAllLanes, start_sum, kWarp - 1);
    end_before = __shfl_sync(kAllLanes, end_sum, kWarp - 1);
  });
}

// d gain_k of one sample: sum over pixels of d a_k a_k / gain_k, from the contracted masks.
template <typename A, bool kOnChip>
__device__ inline void sum_gain(const GateArguments<A>& args, const Bands<A, kOnChip>& bands, int64_t sample, int code,
                                const A* grad_h) {
  const Sizes& sizes = args.sizes;
  if (args.grad_gain_each == nullptr || threadIdx.x >= kWarp) return;
  A sum = 0;
  for (int rect = 0; rect < sizes.rects; ++rect) {
    for (int row = threadIdx.x; row < sizes.height; row += kWarp) {
      sum += load(grad_h + static_cast<int64_t>(rect) * 2 * sizes.height + row) *
             bands.one(bands.rows(code * sizes.rects + rect, row));
    }
  }
  sum = warp_sum(sum);
  if (threadIdx.x == 0) store(args.grad_gain_each + sample * sizes.codes + code, sum / sizes.rects);
}

template <typename A, bool kOnChip>
__device__ inline void differentiate_code(const GateArguments<A>& args, const Bands<A, kOnChip>& bands,
                                          const A* factors, A* masks, int64_t sample, int code) {
  const Sizes& sizes = args.sizes;
  const int64_t first = (sample * sizes.codes + code) * sizes.rects;
  A* grad_h = args.grad_logits_h + 2 * first * sizes.height;
  A* grad_w = args.grad_logits_w + 2 * first * sizes.width;
  contract_masks(args, bands, factors, masks, sample, code, grad_h, grad_w);
  sum_gain(args, bands, sample, code, grad_h);
  __syncthreads();
  for (int unit = threadIdx.x / kWarp; unit < 2 * sizes.rects; unit += kThreads / kWarp) {
    const bool vertical = unit < sizes.rects;
    const int rect = vertical ? unit : unit - sizes.rects;
    const int length = vertical ? sizes.height : sizes.width;
    const A* logits = vertical ? args.logits_h : args.logits_w;
    const Band<A> band(logits + 2 * (first + rect) * length, length, threadIdx.x % kWarp);
    differentiate_band(band, (vertical ? grad_h : grad_w) + static_cast<int64_t>(rect) * 2 * length, factors[code]);
  }
}

// Gradients of all logits; a block takes one code of one sample.
template <typename A, bool kOnChip>
__global__ void __launch_bounds__(kThreads, 2) differentiate_gates(const __grid_constant__ GateArguments<A> args) {
  const Sizes& sizes = args.sizes;
  A* masks = reinterpret_cast<A*>(shared_memory());
  A* factors = masks + args.strip_rows * args.strip_columns;
  A* near_h = factors + sizes.codes;
  const int bands = sizes.codes * sizes.rects;
  A* near_w = near_h + bands * sizes.height;
  const int64_t blocks = sizes.samples * sizes.codes;
  for (int64_t item = blockIdx.x; item < blocks; item += gridDim.x) {
    const int64_t sample = item / sizes.codes;
    const int code = static_cast<int>(item % sizes.codes);
    const A* far_h = args.gates_h + sample * bands * sizes.height;
    const A* far_w = args.gates_w + sample * bands * sizes.width;
    for (int i = threadIdx.x; i < sizes.codes; i += kThreads) {
      factors[i] = (args.gain == nullptr ? A(1) : load(args.gain + i)) / sizes.rects;
    }
    if constexpr (kOnChip) {
      for (int i = threadIdx.x; i < bands * sizes.height; i += kThreads) near_h[i] = load(far_h + i);
      for (int i = threadIdx.x; i < bands * sizes.width; i += kThreads) near_w[i] = load(far_w + i);
    }
    __syncthreads();
    const Bands<A, kOnChip> gates{kOnChip ? near_h : far_h, kOnChip ? near_w : far_w, sizes.height, sizes.width};
    differentiate_code(args, gates, factors, masks, sample, code);
    __syncthreads();  // spare: what is read after the last barrier, the next item writes anew with equal values
  }
}

// d gain: the samples' parts, in order.
template <typename A>
__global__ void __launch_bounds__(kThreads) finish_gain(const __grid_constant__ GateArguments<A> args) {
  const int codes = args.sizes.codes;
  for (int code = blockIdx.x * kThreads + threadIdx.x; code < codes; code += gridDim.x * kThreads) {
    A sum = 0;
    for (int64_t sample = 0; sample < args.sizes.samples; ++sample) {
      sum += load(args.grad_gain_each + sample * codes + code);
    }
    store(args.grad_gain + code, sum);
  }
}

}  // namespace sc_layers
