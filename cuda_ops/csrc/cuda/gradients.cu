// From the sums over features to gradients, with dw_k, dkeep = dL/dw_k, dL/dkeep of every pixel:
//   grad_bias_k = sum_hw g w_k,  grad_scale_k = rstd sum_hw g (x - mean) w_k
//   r_0 = dkeep, r_k = r_{k-1} (1 - a_k) + a_k dw_k;  dL/da_k = (dw_k - r_{k-1}) prod_{l>k} (1 - a_l)
//   dL/dgate_h = gain_k / J sum_w dL/da_k gate_w and likewise dL/dgate_w;  then through cumulative sums and softmaxes.
// r is what the codes make of a feature, here of its gradients; nothing is divided by.
#include "backward.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct GradientArguments {
  using A = accumulator_t<T>;
  BackwardTables<T> all;
  const A* logits_h;
  const A* logits_w;
  const A* added_h;
  const A* added_w;
  const A* gain;
  A* grad_scale;
  A* grad_bias;
  A* grad_logits_h;
  A* grad_logits_w;
  A* grad_gain;
  int blocks;    // of a sample, or of a group of codes of one
  int together;  // see finish_channels
};

template <typename T, typename A = accumulator_t<T>>
__device__ inline A factor_of(const GradientArguments<T>& args, int code) {
  return (args.gain == nullptr ? A(1) : load(args.gain + code)) / args.all.weights.rects;
}

// Adds up the parts of a channel's sums: `together` groups of threads take some of the parts each, and in a group
// neighbouring threads neighbouring sums.
template <typename T, typename A = accumulator_t<T>>
__global__ void __launch_bounds__(kThreads) finish_channels(const __grid_constant__ GradientArguments<T> args) {
  const Weights<A>& weights = args.all.weights;
  A* shared = reinterpret_cast<A*>(shared_memory());  // [together, each]
  const int slots = args.all.slots, parts = args.all.cut.channel_parts, channels = weights.channels;
  const int samples = narrow(weights.samples), count = channels * 2 * slots, each = kThreads / args.together;
  const int unit = narrow(blockIdx.x / static_cast<unsigned>(args.blocks));
  const int group = unit / samples, sample = unit - group * samples, first = threadIdx.x / each;
  const int index = narrow(blockIdx.x % static_cast<unsigned>(args.blocks)) * each + threadIdx.x % each;
  const int64_t stride = static_cast<int64_t>(samples) * count;
  const A* sums = args.all.channel_sums + group * parts * stride + static_cast<int64_t>(sample) * count + index;
  A sum = 0;
#pragma unroll 8
  for (int part = first; part < parts; part += args.together) {
    if (index < count) sum += load(sums + part * stride);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  const int row = index / slots, code = group * kGroup + index - row * slots;
  if (first != 0 || index >= count || code >= weights.codes) return;
  for (int other = 1; other < args.together; ++other) sum += shared[other * each + threadIdx.x];
  const int64_t at = (static_cast<int64_t>(sample) * weights.codes + code) * channels + row / 2;
  store((row % 2 == 0 ? args.grad_bias : args.grad_scale) + at, sum);
}

// dL/da_k; a thread takes a pixel, and its codes forth and back. (ptxas, left to itself, spills for sm_80 to fit eight
// blocks on a multiprocessor.)
template <typename T, typename A = accumulator_t<T>>
__global__ void __launch_bounds__(kThreads, 6) mask_gradients(const __grid_constant__ GradientArguments<T> args) {
  const Weights<A>& weights = args.all.weights;
  const Work work(args.blocks);
  const int slots = args.all.slots, parts = args.all.cut.pixel_parts, pixel = work.index;
  const int64_t sample = work.sample, index = sample * weights.pixels + pixel;
  if (pixel >= weights.pixels) return;
  const auto grad_weight = [&](int code) {
    A sum = 0;
    for (int part = 0; part < parts; ++part) {
      const int64_t at = (code / kGroup * parts + part) * weights.samples * weights.pixels + index;
      sum += load(args.all.pixel_sums + at * slots + code % kGroup);
    }
    return sum;
  };
  const int64_t first = sample * weights.codes * weights.pixels + pixel;
  const A* masks = weights.masks + first;
  A* grads = args.all.mask_grads + first;
  A mixed = grad_weight(weights.codes);
#pragma unroll 4
  for (int code = 0; code < weights.codes; ++code) {
    const A mask = load(masks + static_cast<int64_t>(code) * weights.pixels), grad = grad_weight(code);
    store(grads + static_cast<int64_t>(code) * weights.pixels, grad - mixed);
    mixed = mixed * (1 - mask) + mask * grad;
  }
  A after = 1;
#pragma unroll 4
  for (int code = weights.codes - 1; code >= 0; --code) {
    A* grad = grads + static_cast<int64_t>(code) * weights.pixels;
    store(grad, load(grad) * after);
    after *= 1 - load(masks + static_cast<int64_t>(code) * weights.pixels);
  }
}

// Products of dL/da_k with the gates of some rectangles at a time. Of a code of a sample, the first blocks take kWarp
// rows each, a warp some of them; the others kWarp columns each, a warp some of their rows.
template <typename T, typename A = accumulator_t<T>>
__global__ void __launch_bounds__(kThreads) contract_masks(const __grid_constant__ GradientArguments<T> args) {
  constexpr int kRects = 4;
  const Weights<A>& weights = args.all.weights;
  A* shared = reinterpret_cast<A*>(shared_memory());  // [kWarps, kRects, kWarp]
  const int width = weights.width, height = weights.height, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int row_blocks = (height + kWarp - 1) / kWarp;
  const int64_t plane = blockIdx.x / static_cast<unsigned>(args.blocks);
  const int block = narrow(blockIdx.x % static_cast<unsigned>(args.blocks));
  const A* grads = args.all.mask_grads + plane * weights.pixels;
  for (int rect = 0; rect < weights.rects; rect += kRects) {
    const int64_t band = plane * weights.rects + rect;
    const int rects = min(kRects, weights.rects - rect);
    if (block < row_blocks) {
      const A* gates = weights.gates_w + band * width;
      for (int row = block * kWarp + warp; row < min(block * kWarp + kWarp, height); row += kWarps) {
        A sums[kRects] = {};
#pragma unroll 4
        for (int i = lane; i < width; i += kWarp) {
          const A grad = load(grads + row * width + i);
#pragma unroll
          for (int r = 0; r < kRects; ++r) {
            if (r < rects) sums[r] += grad * load(gates + r * width + i);
          }
        }
#pragma unroll
        for (int r = 0; r < kRects; ++r) {
          const A sum = team_sum(sums[r]);
          if (lane == 0 && r < rects) store(args.all.row_grads + (band + r) * height + row, sum);
        }
      }
    } else {
      const int column = (block - row_blocks) * kWarp + lane;
      const A* gates = weights.gates_h + band * height;
      A sums[kRects] = {};
#pragma unroll 4
      for (int row = warp; row < height; row += kWarps) {
        const A grad = column < width ? load(grads + row * width + column) : A(0);
#pragma unroll
        for (int r = 0; r < kRects; ++r) {
          if (r < rects) sums[r] += grad * load(gates + r * height + row);
        }
      }
#pragma unroll
      for (int r = 0; r < kRects; ++r) shared[(warp * kRects + r) * kWarp + lane] = sums[r];
      __syncthreads();
      if (warp < rects && column < width) {
        A sum = 0;
        for (int other = 0; other < kWarps; ++other) sum += shared[(other * kRects + warp) * kWarp + lane];
        store(args.all.column_grads + (band + warp) * width + column, sum);
      }
      __syncthreads();
    }
  }
}

// From d gate(i) to both logits. With S and E the two cumulative sums, d p_i = sum_{t>=i} dS_t, and
// sum_m p_m d p_m = sum_t dS_t S_t.
template <typename A, typename Grad>
__device__ inline void differentiate_band(const Band<A>& band, Grad grad_of, const A* added, A* result) {
  A start_total = 0, start_dot = 0, end_total = 0, end_dot = 0;
  band.walk([&](int i, A, A, A cumax_start, A cumax_end) {
    const A gate = i < band.length ? grad_of(i) : A(0);
    start_total += gate * (1 - cumax_end);
    start_dot += gate * (1 - cumax_end) * cumax_start;
    end_total -= gate * cumax_start;
    end_dot -= gate * cumax_start * cumax_end;
  });
  start_total = team_sum(start_total);
  start_dot = team_sum(start_dot);
  end_total = team_sum(end_total);
  end_dot = team_sum(end_dot);
  A start_before = 0, end_before = 0;
  band.walk([&](int i, A p_start, A p_end, A cumax_start, A cumax_end) {
    const A gate = i < band.length ? grad_of(i) : A(0);
    const A start_step = gate * (1 - cumax_end), end_step = -gate * cumax_start;
    const A start_sum = start_before + inclusive_scan(start_step, band.lane);
    const A end_sum = end_before + inclusive_scan(end_step, band.lane);
    if (i < band.length) {
      const A start = p_start * (start_total - (start_sum - start_step) - start_dot);
      const A end = p_end * (end_total - (end_sum - end_step) - end_dot);
      store(result + i, added == nullptr ? start : start + load(added + i));
      store(result + band.length + i, added == nullptr ? end : end + load(added + band.length + i));
    }
    start_before = __shfl_sync(kAllLanes, start_sum, kWarp - 1);
    end_before = __shfl_sync(kAllLanes, end_sum, kWarp - 1);
  });
}

// d gain_k of one sample: sum over pixels of dL/da_k a_k / gain_k, by a warp.
template <typename T, typename A = accumulator_t<T>>
__device__ inline void sum_gain(const GradientArguments<T>& args, int64_t plane) {
  const Weights<A>& weights = args.all.weights;
  const int64_t first = plane * weights.rects * weights.height;
  A sum = 0;
  for (int i = threadIdx.x % kWarp; i < weights.rects * weights.height; i += kWarp) {
    sum += load(args.all.row_grads + first + i) * load(weights.gates_h + first + i);
  }
  sum = team_sum(sum);
  if (threadIdx.x % kWarp == 0) store(args.grad_gain + plane, sum / weights.rects);
}

// A warp takes one gate, or the gain of one code of one sample.
template <typename T, typename A = accumulator_t<T>>
__global__ void __launch_bounds__(kThreads) logit_gradients(const __grid_constant__ GradientArguments<T> args) {
  const Weights<A>& weights = args.all.weights;
  const Work work(args.blocks);
  const int bands = weights.codes * weights.rects, index = work.index / kWarp;
  const int64_t sample = work.sample;
  if (index >= 2 * bands) {
    const int code = index - 2 * bands;
    if (args.grad_gain != nullptr && code < weights.codes) sum_gain(args, sample * weights.codes + code);
    return;
  }
  const bool vertical = index < bands;
  const int inner = vertical ? index : index - bands;
  const int64_t at = sample * bands + inner;
  const int length = vertical ? weights.height : weights.width;
  const A factor = factor_of(args, inner / weights.rects);
  const A* grads = (vertical ? args.all.row_grads : args.all.column_grads) + at * length;
  const auto grad_of = [&](int i) { return factor * load(grads + i); };
  const int64_t start = 2 * at * length;
  const A* added = vertical ? args.added_h : args.added_w;
  const Band<A> band((vertical ? args.logits_h : args.logits_w) + start, length, threadIdx.x % kWarp);
  differentiate_band(band, grad_of, added == nullptr ? nullptr : added + start,
                     (vertical ? args.grad_logits_h : args.grad_logits_w) + start);
}

}  // namespace

template <typename T>
const char* finish_sums(const BackwardSums& call, const BackwardTables<T>& all, void* stream) {
  using A = accumulator_t<T>;
  const Shape& s = call.shape;
  GradientArguments<T> args{all,
                            numbers<A>(call.group.gate_logits_h),
                            numbers<A>(call.group.gate_logits_w),
                            numbers<A>(call.added_gate_logits_h),
                            numbers<A>(call.added_gate_logits_w),
                            numbers<A>(call.group.mask_gain),
                            results<A>(call.grad_scale),
                            results<A>(call.grad_bias),
                            results<A>(call.grad_gate_logits_h),
                            results<A>(call.grad_gate_logits_w),
                            results<A>(call.grad_mask_gain),
                            0,
                            narrow(power_of_two(std::min(ceil_divide(all.cut.channel_parts, 4), int64_t{kWarps})))};
  const auto run = [&](auto kernel, int64_t units, int64_t blocks, int shared_bytes) {
    args.blocks = narrow(blocks);
    return launch(kernel, units * blocks, shared_bytes, stream, args);
  };
  const int shared = kThreads * sizeof(A);
  const char* error =
      run(finish_channels<T>, all.groups * s.n, blocks_for(s.c * 2 * all.slots * args.together), shared);
  if (error == nullptr) error = run(mask_gradients<T>, s.n, blocks_for(s.h * s.w), 0);
  if (error == nullptr)
    error = run(contract_masks<T>, s.n * s.k, ceil_divide(s.h, kWarp) + ceil_divide(s.w, kWarp), 4 * shared);
  return error != nullptr ? error : run(logit_gradients<T>, s.n, blocks_for(s.k * (2 * s.j + 1) * kWarp), 0);
}

template const char* finish_sums(const BackwardSums&, const BackwardTables<float>&, void*);
template const char* finish_sums(const BackwardSums&, const BackwardTables<double>&, void*);
template const char* finish_sums(const BackwardSums&, const BackwardTables<Half>&, void*);
template const char* finish_sums(const BackwardSums&, const BackwardTables<Bfloat16>&, void*);

}  // namespace sc_layers
