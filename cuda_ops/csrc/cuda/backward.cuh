// Backward: with g = dL/dy,
//   d bias_k = sum_p g w_k        d scale_k = sum_p g w_k x_hat        over the pixels of a plane
//   d w_k = sum_c g (scale_k x_hat + bias_k)        d keep = sum_c g x        over the channels of a pixel
//   d x = keep g + rstd (q - mean(q) - x_hat mean(q x_hat)),   q = g sum_k w_k scale_k
// where mean(q) = sum_k scale_k d bias_k / pixels and mean(q x_hat) = sum_k scale_k d scale_k / pixels.
#pragma once

#include "tile.cuh"

namespace sc_layers {

template <typename T>
struct BackwardArguments {
  using A = accumulator_t<T>;
  const T* grad;
  const T* x;
  Gates<A> gates;
  const A* scale;  // [n, k, c]
  const A* bias;
  const A* mean;  // [n, c]
  const A* rstd;
  T* grad_x;
  A* grad_scale;  // [n, k, c]
  A* grad_bias;
  A* grad_weights;  // [n, groups, k + 1, h w], partial sums over the channels of a group
  A* sums;          // [n, c, slices, k, 2], only of planes that are not on chip
  Sizes sizes;
  Plan plan;
};

__host__ __device__ constexpr int next_power(int value) { return value <= 1 ? 1 : 2 * next_power((value + 1) / 2); }

// Adds, for two channels and kCodes codes, sum_p g w_k and sum_p g w_k x_hat over the chunk to the block's sums; a warp
// takes one segment of the chunk.
template <typename T, int kCodes>
__device__ inline void sum_pixels(const Chip<T>& chip, const Plan& plan, int codes, int first_code, int pixels,
                                  int start) {
  using A = accumulator_t<T>;
  constexpr int kValues = next_power(4 * kCodes);
  const int thread = thread_index();
  const int lane = thread % kWarp;
  const int pairs = plan.batch / 2;
  const int end = min(plan.chunk, pixels - start);
  for (int unit = thread / kWarp; unit < pairs * plan.segments; unit += kThreads / kWarp) {
    const int segment = unit >> (plan.batch_log2 - 1), pair = unit & plan.row_pair_mask;
    A values[kValues] = {};
    const int first = (segment * kWarp + lane) * kQuad, step = plan.segments * kWarp * kQuad;
    // One running pointer: more of them do not fit into the registers.
    const T* gradients = chip.gradients + 2 * pair * plan.stride + start + first;
    for (int at = first; at < end; at += step) {
      A grad[2][kQuad], product[2][kQuad];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const A mean = chip.statistics[2 * (2 * pair + r)];
        read_group(gradients + r * plan.stride, grad[r]);
        read_group(gradients + (chip.features - chip.gradients) + r * plan.stride, product[r]);
#pragma unroll
        for (int e = 0; e < kQuad; ++e) product[r][e] = grad[r][e] * (product[r][e] - mean);
      }
#pragma unroll
      for (int code = 0; code < kCodes; ++code) {
        A weight[kQuad];
        read_group(chip.weights + (first_code + code) * plan.chunk + at, weight);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
          for (int e = 0; e < kQuad; ++e) {
            values[2 * (r * kCodes + code)] += grad[r][e] * weight[e];
            values[2 * (r * kCodes + code) + 1] += product[r][e] * weight[e];
          }
        }
      }
      gradients += step;
    }
    A sum = warp_sum_each(values, lane);
    constexpr int kLanesEach = kWarp / kValues;
    const int own = thread_index() % kWarp;  // not `lane`: what follows from it would be worked out before the loop
    const int value = own / kLanesEach;
    if (own % kLanesEach == 0 && value < 4 * kCodes) {
      const int row = 2 * pair + value / (2 * kCodes), code = first_code + value / 2 % kCodes;
      if (value % 2 == 1) sum *= chip.statistics[2 * row + 1];
      A* total = chip.sums + 2 * ((segment * plan.batch + row) * codes + code) + value % 2;
      *total = start == 0 ? sum : *total + sum;
    }
  }
}

// Adds the batch's part of d w_k, and of d keep, to the block's sums; a thread takes a quad of pixels, and every
// `plan.parts`th channel of it.
template <typename T, int kCodes>
__device__ inline void sum_channels(const Chip<T>& chip, const Plan& plan, int codes, int first_code, int pixels,
                                    int start, int unit) {
  using A = accumulator_t<T>;
  const int part = unit >> (plan.chunk_log2 - kQuadLog2);
  const int pixel = start + kQuad * (unit & plan.quad_mask);
  if (pixel >= pixels) return;
  A grad_weight[kCodes][kQuad] = {}, grad_keep[kQuad] = {};
#pragma unroll 1
  for (int row = part; row < plan.batch; row += plan.parts) {
    const A mean = chip.statistics[2 * row], rstd = chip.statistics[2 * row + 1];
    A grad[kQuad], product[kQuad];
    read_group(chip.gradients + row * plan.stride + pixel, grad);
    read_group(chip.features + row * plan.stride + pixel, product);
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      grad_keep[e] += grad[e] * product[e];
      product[e] = grad[e] * ((product[e] - mean) * rstd);
    }
    const A* styles = chip.styles + 2 * (first_code * plan.batch + row);
#pragma unroll
    for (int code = 0; code < kCodes; ++code) {
      A style[2];
      read_group(styles, style);
      styles += 2 * plan.batch;
#pragma unroll
      for (int e = 0; e < kQuad; ++e) {
        grad_weight[code][e] += product[e] * style[0];
        grad_weight[code][e] += grad[e] * style[1];
      }
    }
  }
  const int slice = round_up(plan.slice, kQuad);
  A* sums = chip.weight_gradients + part * (codes + 1) * slice + pixel;
  const auto add = [](A* to, const A(&values)[kQuad]) {
    A sum[kQuad];
    read_group(to, sum);
#pragma unroll
    for (int e = 0; e < kQuad; ++e) sum[e] += values[e];
    write_group(to, sum);
  };
#pragma unroll
  for (int code = 0; code < kCodes; ++code) add(sums + (first_code + code) * slice, grad_weight[code]);
  if (first_code == 0) add(sums + codes * slice, grad_keep);
}

template <typename T, int kCodes>
__device__ inline void sum_codes(const Chip<T>& chip, const Plan& plan, int codes, int first_code, int pixels,
                                 int start) {
  sum_pixels<T, kCodes>(chip, plan, codes, first_code, pixels, start);
  for (int unit = thread_index(); unit < plan.parts << (plan.chunk_log2 - kQuadLog2); unit += kThreads) {
    sum_channels<T, kCodes>(chip, plan, codes, first_code, pixels, start, unit);
  }
}

// The codes in as few and as even passes as the registers allow.
template <typename T>
__device__ inline void sum_chunk(const Chip<T>& chip, const Plan& plan, int codes, int pixels, int start) {
#pragma unroll 1
  for (int first = 0; first < codes; first += plan.together) {
    forget_origin(first);
    switch (min(codes - first, plan.together)) {
      case 1:
        sum_codes<T, 1>(chip, plan, codes, first, pixels, start);
        break;
      case 2:
        sum_codes<T, 2>(chip, plan, codes, first, pixels, start);
        break;
      case 3:
        sum_codes<T, 3>(chip, plan, codes, first, pixels, start);
        break;
      case 4:
        sum_codes<T, 4>(chip, plan, codes, first, pixels, start);
        break;
      default:
        sum_codes<T, kCodesAtOnce>(chip, plan, codes, first, pixels, start);
    }
  }
}

// The batch's sums over the own slice or, from all blocks of a cluster, over the plane: sum `at` of `row` and `code`.
template <typename T>
__device__ inline accumulator_t<T> merge_sums(const Chip<T>& chip, const Plan& plan, const Span& span, int codes,
                                              int row, int code, int at, int slices) {
  accumulator_t<T> total = 0;
#pragma unroll 4
  for (int i = 0; i < slices; ++i) {
    const int slice = slices == 1 ? span.slice : i;
    for (int segment = 0; segment < plan.segments; ++segment) {
      const auto* sum = chip.sums + 2 * ((segment * plan.batch + row) * codes + code) + at;
      total += slice == span.slice ? *sum : read_peer(sum, slice);
    }
  }
  return total;
}

// d scale and d bias of the batch, on chip; also in device memory if they were found here.
template <typename T, Stage kStage>
__device__ inline void settle_sums(const Chip<T>& chip, const BackwardArguments<T>& args, const Span& span) {
  using A = accumulator_t<T>;
  const Plan& plan = args.plan;
  const int codes = args.sizes.codes;
  for (int i = thread_index(); i < span.channels * codes * 2; i += kThreads) {
    const int row = i / (2 * codes), code = i / 2 % codes;
    A* grads = i % 2 == 0 ? args.grad_bias : args.grad_scale;
    A* at = grads + (span.sample * codes + code) * args.sizes.channels + span.first_channel + row;
    if constexpr (kStage == Stage::apply) {
      chip.totals[i] = load(at);
    } else {
      chip.totals[i] = merge_sums(chip, plan, span, codes, row, code, i % 2, plan.slices);
      if (span.slice == 0) store(at, chip.totals[i]);
    }
  }
}

// What the instance norm subtracts from q: its mean, and its mean product with x_hat.
template <typename T>
__device__ inline void settle_norm(const Chip<T>& chip, const Plan& plan, const Sizes& sizes, const Span& span) {
  using A = accumulator_t<T>;
  for (int row = thread_index(); row < plan.batch; row += kThreads) {
    A mean = 0, product = 0;
    for (int code = 0; code < sizes.codes && row < span.channels; ++code) {
      const A scale = chip.styles[2 * (code * plan.batch + row)];
      mean += scale * chip.totals[2 * (row * sizes.codes + code)];
      product += scale * chip.totals[2 * (row * sizes.codes + code) + 1];
    }
    chip.statistics[2 * (plan.batch + row)] = mean / sizes.pixels;
    chip.statistics[2 * (plan.batch + row) + 1] = product / sizes.pixels;
  }
}

// d x of the chunk whose weights are on chip, in place of the features.
template <typename T>
__device__ inline void differentiate_chunk(const Chip<T>& chip, const Plan& plan, int codes, int pixels, int start) {
  using A = accumulator_t<T>;
  constexpr int kTile = kRows<T>;
  const int units = plan.batch / kTile << (plan.chunk_log2 - kQuadLog2);
  for (int unit = thread_index(); unit < units; unit += kThreads) {
    const auto [tile, quad] = split(unit, plan.chunk_log2 - kQuadLog2);
    const int row = tile * kTile, at = quad * kQuad;
    if (start + at >= pixels) continue;
    A gain[kTile][kQuad] = {};
#pragma unroll 1
    for (int code = 0; code < codes; ++code) {
      A weight[kQuad], style[2 * kTile];
      read_group(chip.weights + code * plan.chunk + at, weight);
      read_group(chip.styles + 2 * (code * plan.batch + row), style);
#pragma unroll
      for (int r = 0; r < kTile; ++r) {
#pragma unroll
        for (int e = 0; e < kQuad; ++e) gain[r][e] += weight[e] * style[2 * r];
      }
    }
    A keep[kQuad];
    read_group(chip.weights + codes * plan.chunk + at, keep);
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
      const A* statistics = chip.statistics + 2 * (row + r);
      const A mean = statistics[0], rstd = statistics[1];
      const A mean_q = statistics[2 * plan.batch], mean_product = statistics[2 * plan.batch + 1];
      T* features = chip.features + (row + r) * plan.stride + start + at;
      A x[kQuad], grad[kQuad];
      read_group(features, x);
      read_group(chip.gradients + (row + r) * plan.stride + start + at, grad);
#pragma unroll
      for (int e = 0; e < kQuad; ++e) {
        const A normal = (x[e] - mean) * rstd;
        x[e] = keep[e] * grad[e] + rstd * (grad[e] * gain[r][e] - mean_q - normal * mean_product);
      }
      write_group(features, x);
    }
  }
}

template <typename T>
__device__ inline void load_statistics(const Chip<T>& chip, const BackwardArguments<T>& args, const Span& span) {
  using A = accumulator_t<T>;
  for (int row = thread_index(); row < args.plan.batch; row += kThreads) {
    const int64_t channel = span.sample * args.sizes.channels + span.first_channel + row;
    const bool inside = row < span.channels;
    chip.statistics[2 * row] = inside ? load(args.mean + channel) : A(0);
    chip.statistics[2 * row + 1] = inside ? load(args.rstd + channel) : A(0);
  }
}

template <typename T>
__device__ inline void store_sums(const Chip<T>& chip, const BackwardArguments<T>& args, const Span& span) {
  const Plan& plan = args.plan;
  const int codes = args.sizes.codes;
  for (int i = thread_index(); i < span.channels * codes * 2; i += kThreads) {
    const int row = i / (2 * codes), code = i / 2 % codes;
    const int64_t plane = span.sample * args.sizes.channels + span.first_channel + row;
    store(args.sums + 2 * ((plane * plan.slices + span.slice) * codes + code) + i % 2,
          merge_sums(chip, plan, span, codes, row, code, i % 2, 1));
  }
}

template <typename T>
__device__ inline void clear_weight_gradients(const Chip<T>& chip, const Plan& plan, int codes) {
  const int count = plan.parts * (codes + 1) * round_up(plan.slice, kQuad);
  for (int i = thread_index(); i < count; i += kThreads) chip.weight_gradients[i] = 0;
}

template <typename T>
__device__ inline void store_weight_gradients(const Chip<T>& chip, const BackwardArguments<T>& args, const Span& span) {
  using A = accumulator_t<T>;
  const Plan& plan = args.plan;
  const int rows = args.sizes.codes + 1;
  const int slice = round_up(plan.slice, kQuad);
  const int64_t first = (span.sample * plan.groups + span.group) * rows * args.sizes.pixels + span.first_pixel;
  for (int row = 0; row < rows; ++row) {
    for (int pixel = thread_index(); pixel < span.pixels; pixel += kThreads) {
      A sum = 0;
      for (int part = 0; part < plan.parts; ++part) {
        sum += chip.weight_gradients[(part * rows + row) * slice + pixel];
      }
      store(args.grad_weights + first + static_cast<int64_t>(row) * args.sizes.pixels + pixel, sum);
    }
  }
}

template <typename T>
__device__ inline void load_batch(const Chip<T>& chip, const BackwardArguments<T>& args, const Span& span) {
#pragma unroll 1
  for (int i = 0; i < 2; ++i) {  // one copy of the code for both
    load_tile(i == 0 ? chip.features : chip.gradients, i == 0 ? args.x : args.grad, args.sizes, args.plan, span);
  }
  load_styles(chip.styles, args.scale, args.bias, args.sizes, args.plan, span);
  load_statistics(chip, args, span);
  __syncthreads();  // spare: entering a pass waits too, but settle_batch may come first
}

// Between the two passes over a batch: its sums are complete, of the slice or, in a cluster, of the plane.
template <typename T, Stage kStage>
__device__ inline void settle_batch(const Chip<T>& chip, const BackwardArguments<T>& args, const Span& span) {
  if constexpr (kStage == Stage::statistics) {
    store_sums(chip, args, span);
  } else {
    settle_sums<T, kStage>(chip, args, span);
    __syncthreads();
    settle_norm(chip, args.plan, args.sizes, span);
    __syncthreads();  // spare: entering the next pass waits too
  }
}

template <typename T, Stage kStage>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 4)
    constrict_backward(const __grid_constant__ BackwardArguments<T> args) {
  constexpr int kFirstPass = kStage == Stage::apply ? 1 : 0, kLastPass = kStage == Stage::statistics ? 0 : 1;
  const Plan& plan = args.plan;
  const Sizes& sizes = args.sizes;
  const Chip<T> chip = chip_of<T>(plan.shared);
  Span& span = *chip.span;
  begin(span);
  while (enter_next_item(span, sizes, plan)) {
    load_gates(chip.factors, chip.bands_h, chip.bands_w, args.gates, sizes, plan, span);
    if constexpr (kStage != Stage::apply) clear_weight_gradients(chip, plan, sizes.codes);
    while (enter_next_batch(span, sizes, plan)) {
      load_batch(chip, args, span);
      if constexpr (kStage == Stage::apply) settle_batch<T, kStage>(chip, args, span);
      while (enter_next_pass(span, kFirstPass, kLastPass)) {  // sums, then d x
#pragma unroll 1
        for (int start = 0; start < span.pixels; start += plan.chunk) {
          // The weights of a slice that is one chunk stay on chip.
          if (plan.slice > plan.chunk || (span.batch == 0 && span.pass == kFirstPass)) {
            weigh(chip.weights, chip.factors, chip.bands_h, chip.bands_w, args.gates, sizes, plan, span, start);
            __syncthreads();
          }
          if (kStage == Stage::statistics || (kStage == Stage::whole && span.pass == 0))
            sum_chunk(chip, plan, sizes.codes, span.pixels, start);
          else
            differentiate_chunk(chip, plan, sizes.codes, span.pixels, start);
          __syncthreads();
        }
        if (kStage != Stage::apply && span.pass == 0) {
          if (plan.cluster > 1) cluster_sync();
          settle_batch<T, kStage>(chip, args, span);
        }
      }
      if constexpr (kStage != Stage::statistics) store_tile(args.grad_x, chip.features, sizes, plan, span);
      // No block may go on, or end, while another one of its cluster still reads its sums.
      if (plan.cluster > 1)
        cluster_sync();
      else
        __syncthreads();
    }
    if constexpr (kStage != Stage::apply) store_weight_gradients(chip, args, span);
    __syncthreads();
  }
}

// Sums of the slices of planes that are not on chip become d scale and d bias, a thread a code of a plane.
template <typename T>
__global__ void __launch_bounds__(kThreads) finish_sums(const __grid_constant__ BackwardArguments<T> args) {
  using A = accumulator_t<T>;
  const int codes = args.sizes.codes, slices = args.plan.slices;
  const int64_t count = args.sizes.samples * args.sizes.channels * codes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t plane = i / codes, code = i % codes;
    A grad_bias = 0, grad_scale = 0;
    for (int slice = 0; slice < slices; ++slice) {
      const A* sums = args.sums + 2 * ((plane * slices + slice) * codes + code);
      grad_bias += load(sums);
      grad_scale += load(sums + 1);
    }
    const int64_t sample = plane / args.sizes.channels, channel = plane % args.sizes.channels;
    const int64_t at = (sample * codes + code) * args.sizes.channels + channel;
    store(args.grad_bias + at, grad_bias);
    store(args.grad_scale + at, grad_scale);
  }
}

}  // namespace sc_layers
