// Forward: statistics of every plane and y = keep * x + x_hat * sum_k w_k scale_k + sum_k w_k bias_k (Eq. 6 and 7).
#pragma once

#include "tile.cuh"

namespace sc_layers {

template <typename T>
struct ForwardArguments {
  using A = accumulator_t<T>;
  const T* x;
  Gates<A> gates;
  const A* scale;  // [n, k, c]
  const A* bias;
  A eps;
  T* y;
  A* mean;  // [n, c]
  A* rstd;
  A* moments;  // [n, c, slices, 2], only of planes that are not on chip
  Sizes sizes;
  Plan plan;
};

template <typename A>
__device__ inline A reciprocal_root(A value) {
  return A(1) / sqrt(value);
}

// What is kept of some pixels: their number, their mean and the sum of squared deviations from it.
template <typename A>
struct Moments {
  A count, mean, square;
};

// Moments of pieces of one plane become those of the plane, piece after piece in a fixed order.
template <typename A, typename Piece>
__device__ inline Moments<A> merge_moments(int pieces, Piece piece, A pixels) {
  A mean = 0, square = 0;
  for (int i = 0; i < pieces; ++i) {
    const Moments<A> part = piece(i);
    mean += part.count * part.mean;
  }
  mean /= pixels;
  for (int i = 0; i < pieces; ++i) {
    const Moments<A> part = piece(i);
    square += part.square + part.count * (part.mean - mean) * (part.mean - mean);
  }
  return {pixels, mean, square};
}

// Pixels of a span that segment `segment` of its channels covers.
__device__ inline void segment_range(int pixels, int segments, int segment, int& first, int& last) {
  const int length = ceil_divide(ceil_divide(pixels, kQuad), segments) * kQuad;
  first = min(pixels, segment * length);
  last = min(pixels, first + length);
}

// Mean and sum of squared deviations of every segment of every channel, one warp each.
template <typename T>
__device__ inline void find_moments(const Chip<T>& chip, const Plan& plan, int pixels) {
  using A = accumulator_t<T>;
  const int thread = thread_index();
  const int lane = thread % kWarp;
  for (int unit = thread / kWarp; unit < plan.batch * plan.segments; unit += kThreads / kWarp) {
    const auto [segment, row] = split(unit, plan.batch_log2);
    int first, last;
    segment_range(pixels, plan.segments, segment, first, last);
    const T* features = chip.features + row * plan.stride;
    A sum = 0;
    for (int i = first + lane * kQuad; i < last; i += kWarp * kQuad) {
      A x[kQuad];
      read_group(features + i, x);  // zeros beyond the last pixel
      sum += (x[0] + x[1]) + (x[2] + x[3]);
    }
    const A mean = last > first ? warp_sum(sum) / (last - first) : A(0);
    A square = 0;
    for (int i = first + lane * kQuad; i < last; i += kWarp * kQuad) {
      A x[kQuad];
      read_group(features + i, x);
#pragma unroll
      for (int e = 0; e < kQuad; ++e) square += i + e < last ? (x[e] - mean) * (x[e] - mean) : A(0);
    }
    square = warp_sum(square);
    if (lane == 0) {
      chip.sums[2 * unit] = mean;
      chip.sums[2 * unit + 1] = square;
    }
  }
}

// From the moments of all segments, of the whole plane or only of the own slice.
template <typename T>
__device__ inline Moments<accumulator_t<T>> merge_segments(const Chip<T>& chip, const Plan& plan, const Sizes& sizes,
                                                           const Span& span, int row, bool whole_plane) {
  using A = accumulator_t<T>;
  const auto piece = [&](int i) -> Moments<A> {
    const int slice = whole_plane ? i / plan.segments : span.slice;
    const int segment = i % plan.segments;
    const A* at = chip.sums + 2 * (segment * plan.batch + row);
    const bool own = slice == span.slice;
    int first, last;
    segment_range(min(plan.slice, sizes.pixels - slice * plan.slice), plan.segments, segment, first, last);
    return {A(last - first), own ? at[0] : read_peer(at, slice), own ? at[1] : read_peer(at + 1, slice)};
  };
  const int slices = whole_plane ? plan.slices : 1;
  return merge_moments(slices * plan.segments, piece, A(whole_plane ? sizes.pixels : span.pixels));
}

// Mean and rstd of every channel of the batch, on chip; also in device memory if they were found here.
template <typename T, Stage kStage>
__device__ inline void settle_statistics(const Chip<T>& chip, const ForwardArguments<T>& args, const Span& span) {
  using A = accumulator_t<T>;
  const Plan& plan = args.plan;
  for (int row = thread_index(); row < span.channels; row += kThreads) {
    const int64_t channel = span.sample * args.sizes.channels + span.first_channel + row;
    A mean, rstd;
    if constexpr (kStage == Stage::apply) {
      mean = load(args.mean + channel);
      rstd = load(args.rstd + channel);
    } else {
      const Moments<A> plane = merge_segments(chip, plan, args.sizes, span, row, true);
      mean = plane.mean;
      rstd = reciprocal_root(plane.square / args.sizes.pixels + args.eps);
      if (span.slice == 0) {
        store(args.mean + channel, mean);
        store(args.rstd + channel, rstd);
      }
    }
    chip.statistics[2 * row] = mean;
    chip.statistics[2 * row + 1] = rstd;
  }
}

// Blends the chunk of pixels whose weights are on chip, in place: a thread takes kRows channels of a quad of pixels.
template <typename T>
__device__ inline void blend_chunk(const Chip<T>& chip, const Plan& plan, int codes, int pixels, int start) {
  using A = accumulator_t<T>;
  constexpr int kTile = kRows<T>;
  const int units = plan.batch / kTile << (plan.chunk_log2 - kQuadLog2);
  for (int unit = thread_index(); unit < units; unit += kThreads) {
    const auto [tile, quad] = split(unit, plan.chunk_log2 - kQuadLog2);
    const int row = tile * kTile, at = quad * kQuad;  // `at` is within the chunk
    if (start + at >= pixels) continue;
    A gain[kTile][kQuad] = {}, shift[kTile][kQuad] = {};
#pragma unroll 1
    for (int code = 0; code < codes; ++code) {
      A weight[kQuad], style[2 * kTile];
      read_group(chip.weights + code * plan.chunk + at, weight);
      read_group(chip.styles + 2 * (code * plan.batch + row), style);
#pragma unroll
      for (int r = 0; r < kTile; ++r) {
#pragma unroll
        for (int e = 0; e < kQuad; ++e) {
          gain[r][e] += weight[e] * style[2 * r];
          shift[r][e] += weight[e] * style[2 * r + 1];
        }
      }
    }
    A keep[kQuad];
    read_group(chip.weights + codes * plan.chunk + at, keep);
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
      T* features = chip.features + (row + r) * plan.stride + start + at;
      const A mean = chip.statistics[2 * (row + r)], rstd = chip.statistics[2 * (row + r) + 1];
      A x[kQuad];
      read_group(features, x);
#pragma unroll
      for (int e = 0; e < kQuad; ++e) {
        x[e] = keep[e] * x[e] + (x[e] - mean) * rstd * gain[r][e] + shift[r][e];
      }
      write_group(features, x);
    }
  }
}

template <typename T, Stage kStage>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 4)
    constrict_forward(const __grid_constant__ ForwardArguments<T> args) {
  using A = accumulator_t<T>;
  const Plan& plan = args.plan;
  const Sizes& sizes = args.sizes;
  const Chip<T> chip = chip_of<T>(plan.shared);
  Span& span = *chip.span;
  begin(span);
  while (enter_next_item(span, sizes, plan)) {
    enter_next_batch(span, sizes, plan);
    load_tile(chip.features, args.x, sizes, plan, span);
    if constexpr (kStage != Stage::statistics) {
      load_styles(chip.styles, args.scale, args.bias, sizes, plan, span);
      load_gates(chip.factors, chip.bands_h, chip.bands_w, args.gates, sizes, plan, span);
    }
    __syncthreads();
    if constexpr (kStage != Stage::apply) {
      find_moments(chip, plan, span.pixels);
      if (plan.cluster > 1)
        cluster_sync();
      else
        __syncthreads();
    }
    if constexpr (kStage == Stage::statistics) {
      for (int row = thread_index(); row < span.channels; row += kThreads) {
        const Moments<A> slice = merge_segments(chip, plan, sizes, span, row, false);
        const int64_t channel = span.sample * sizes.channels + span.first_channel + row;
        store(args.moments + 2 * (channel * plan.slices + span.slice), slice.mean);
        store(args.moments + 2 * (channel * plan.slices + span.slice) + 1, slice.square);
      }
    } else {
      settle_statistics<T, kStage>(chip, args, span);
      for (int start = 0; start < span.pixels; start += plan.chunk) {
        weigh(chip.weights, chip.factors, chip.bands_h, chip.bands_w, args.gates, sizes, plan, span, start);
        __syncthreads();
        blend_chunk(chip, plan, sizes.codes, span.pixels, start);
        __syncthreads();
      }
      store_tile(args.y, chip.features, sizes, plan, span);
    }
    // No block may go on, or end, while another one of its cluster still reads its moments.
    if (plan.cluster > 1)
      cluster_sync();
    else
      __syncthreads();
  }
}

// Moments of the slices of planes that are not on chip become means and rstds, a thread a plane.
template <typename T>
__global__ void __launch_bounds__(kThreads) finish_statistics(const __grid_constant__ ForwardArguments<T> args) {
  using A = accumulator_t<T>;
  const Plan& plan = args.plan;
  const int64_t planes = args.sizes.samples * args.sizes.channels;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t plane = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; plane < planes; plane += step) {
    const A* moments = args.moments + 2 * plane * plan.slices;
    const auto piece = [&](int i) -> Moments<A> {
      return {A(min(plan.slice, args.sizes.pixels - i * plan.slice)), load(moments + 2 * i), load(moments + 2 * i + 1)};
    };
    const Moments<A> whole = merge_moments(plan.slices, piece, A(args.sizes.pixels));
    store(args.mean + plane, whole.mean);
    store(args.rstd + plane, reciprocal_root(whole.square / args.sizes.pixels + args.eps));
  }
}

}  // namespace sc_layers
