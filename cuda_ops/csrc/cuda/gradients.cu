// From the sums over features to gradients, with dw_k, dkeep = dL/dw_k, dL/dkeep of every pixel:
//   grad_bias_k = sum_hw g w_k,  grad_scale_k = rstd sum_hw g (x - mean) w_k
//   r_0 = dkeep, r_k = r_{k-1} (1 - a_k) + a_k dw_k;  dL/da_k = (dw_k - r_{k-1}) prod_{l>k} (1 - a_l)
//   dL/dgate_h = gain_k / J sum_w dL/da_k gate_w and likewise dL/dgate_w;  then through cumulative sums and softmaxes.
// r is what the codes make of a feature, here of its gradients; nothing is divided by.
#include "backward.cuh"

namespace sc_layers {
namespace {

template <typename A>
struct GradientArguments {
  BackwardTables<A> all;
  const A* logits_h;
  const A* logits_w;
  const A* added_h;
  const A* added_w;
  const A* gain;
  const A* rstd;
  A* grad_scale;
  A* grad_bias;
  A* grad_logits_h;
  A* grad_logits_w;
  A* grad_gain;
};

template <typename A>
__device__ inline A factor_of(const GradientArguments<A>& args, int code) {
  return (args.gain == nullptr ? A(1) : load(args.gain + code)) / args.all.tables.rects;
}

// A thread takes one code of one channel.
template <typename A>
__global__ void __launch_bounds__(kThreads) finish_channels(const __grid_constant__ GradientArguments<A> args) {
  const Tables<A>& tables = args.all.tables;
  const int64_t index = global_thread(), plane = index / tables.codes, planes = tables.samples * tables.channels;
  const int code = static_cast<int>(index % tables.codes), slots = args.all.slots;
  if (plane >= planes) return;
  A plain = 0, moved = 0;
  for (int part = 0; part < args.all.cut.channel_parts; ++part) {
    const int64_t row = (code / kGroup * args.all.cut.channel_parts + part) * planes + plane;
    const A* sums = args.all.channel_sums + row * 2 * slots + code % kGroup;
    plain += load(sums);
    moved += load(sums + slots);
  }
  const int64_t sample = plane / tables.channels;
  const int64_t at = (sample * tables.codes + code) * tables.channels + plane % tables.channels;
  store(args.grad_bias + at, plain);
  store(args.grad_scale + at, moved * load(args.rstd + plane));
}

// dL/da_k; a thread takes a pixel, and its codes forth and back.
template <typename A>
__global__ void __launch_bounds__(kThreads) mask_gradients(const __grid_constant__ GradientArguments<A> args) {
  const Tables<A>& tables = args.all.tables;
  const int64_t index = global_thread(), sample = index / tables.pixels;
  const int pixel = static_cast<int>(index % tables.pixels), slots = args.all.slots;
  if (sample >= tables.samples) return;
  const int row = pixel / tables.width, column = pixel % tables.width;
  const auto grad_weight = [&](int code) {
    A sum = 0;
    for (int part = 0; part < args.all.cut.pixel_parts; ++part) {
      const int64_t at = (code / kGroup * args.all.cut.pixel_parts + part) * tables.samples * tables.pixels + index;
      sum += load(args.all.pixel_sums + at * slots + code % kGroup);
    }
    return sum;
  };
  A* grads = args.all.mask_grads + sample * tables.codes * tables.pixels + pixel;
  A mixed = grad_weight(tables.codes);
  for (int code = 0; code < tables.codes; ++code) {
    const A mask = factor_of(args, code) * rectangles_at(tables, sample, code, row, column), grad = grad_weight(code);
    store(grads + static_cast<int64_t>(code) * tables.pixels, grad - mixed);
    mixed = mixed * (1 - mask) + mask * grad;
  }
  A after = 1;
  for (int code = tables.codes - 1; code >= 0; --code) {
    A* grad = grads + static_cast<int64_t>(code) * tables.pixels;
    store(grad, load(grad) * after);
    after *= 1 - factor_of(args, code) * rectangles_at(tables, sample, code, row, column);
  }
}

// Products of dL/da_k with both gates; a block takes one code of one sample, and a strip of rows.
template <typename A>
__global__ void __launch_bounds__(kThreads) contract_masks(const __grid_constant__ GradientArguments<A> args) {
  const Tables<A>& tables = args.all.tables;
  const int64_t plane = blockIdx.x / args.all.strips, first = plane * tables.rects;
  const int strip = static_cast<int>(blockIdx.x % args.all.strips), top = strip * args.all.strip_rows;
  const int rows = min(args.all.strip_rows, tables.height - top), width = tables.width, lane = threadIdx.x % kWarp;
  const A* grads = args.all.mask_grads + plane * tables.pixels + static_cast<int64_t>(top) * width;
  for (int unit = threadIdx.x / kWarp; unit < rows * tables.rects; unit += kWarps) {
    const int row = unit / tables.rects;
    const int64_t band = first + unit % tables.rects;
    A sum = 0;
    for (int i = lane; i < width; i += kWarp) {
      sum += load(grads + static_cast<int64_t>(row) * width + i) * load(tables.gates_w + band * width + i);
    }
    sum = team_sum(sum);
    if (lane == 0) store(args.all.row_grads + band * tables.height + top + row, sum);
  }
  A* results = args.all.column_grads + (strip * tables.samples * tables.codes * tables.rects + first) * width;
  for (int unit = threadIdx.x; unit < width * tables.rects; unit += kThreads) {
    const A* gates = tables.gates_h + (first + unit / width) * tables.height + top;
    A sum = 0;
    for (int row = 0; row < rows; ++row) {
      sum += load(grads + static_cast<int64_t>(row) * width + unit % width) * load(gates + row);
    }
    store(results + unit, sum);
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
template <typename A>
__device__ inline void sum_gain(const GradientArguments<A>& args, int64_t plane) {
  const Tables<A>& tables = args.all.tables;
  const int64_t first = plane * tables.rects * tables.height;
  A sum = 0;
  for (int i = threadIdx.x % kWarp; i < tables.rects * tables.height; i += kWarp) {
    sum += load(args.all.row_grads + first + i) * load(tables.gates_h + first + i);
  }
  sum = team_sum(sum);
  if (threadIdx.x % kWarp == 0) store(args.grad_gain + plane, sum / tables.rects);
}

// A warp takes one gate, or the gain of one code of one sample.
template <typename A>
__global__ void __launch_bounds__(kThreads) logit_gradients(const __grid_constant__ GradientArguments<A> args) {
  const Tables<A>& tables = args.all.tables;
  const int64_t planes = tables.samples * tables.codes, bands = planes * tables.rects;
  const int64_t index = global_thread() / kWarp;
  if (index >= 2 * bands) {
    if (args.grad_gain != nullptr && index < 2 * bands + planes) sum_gain(args, index - 2 * bands);
    return;
  }
  const bool vertical = index < bands;
  const int64_t at = vertical ? index : index - bands;
  const int length = vertical ? tables.height : tables.width;
  const A factor = factor_of(args, static_cast<int>(at / tables.rects % tables.codes));
  const auto grad_of = [&](int i) {
    if (vertical) return factor * load(args.all.row_grads + at * length + i);
    A sum = 0;
    for (int strip = 0; strip < args.all.strips; ++strip) {
      sum += load(args.all.column_grads + (strip * bands + at) * length + i);
    }
    return factor * sum;
  };
  const int64_t start = 2 * at * length;
  const A* added = vertical ? args.added_h : args.added_w;
  const Band<A> band((vertical ? args.logits_h : args.logits_w) + start, length, threadIdx.x % kWarp);
  differentiate_band(band, grad_of, added == nullptr ? nullptr : added + start,
                     (vertical ? args.grad_logits_h : args.grad_logits_w) + start);
}

}  // namespace

template <typename A>
const char* finish_sums(const BackwardSums& call, const BackwardTables<A>& all, void* stream) {
  const Shape& s = call.shape;
  const auto numbers = [](const void* pointer) { return static_cast<const A*>(pointer); };
  const auto results = [](void* pointer) { return static_cast<A*>(pointer); };
  const GradientArguments<A> args{all,
                                  numbers(call.group.gate_logits_h),
                                  numbers(call.group.gate_logits_w),
                                  numbers(call.added_gate_logits_h),
                                  numbers(call.added_gate_logits_w),
                                  numbers(call.group.mask_gain),
                                  numbers(call.group.rstd),
                                  results(call.grad_scale),
                                  results(call.grad_bias),
                                  results(call.grad_gate_logits_h),
                                  results(call.grad_gate_logits_w),
                                  results(call.grad_mask_gain)};
  const char* error = launch_each(finish_channels<A>, s.n * s.c * s.k, stream, args);
  if (error == nullptr) error = launch_each(mask_gradients<A>, s.n * s.h * s.w, stream, args);
  if (error == nullptr) error = launch(contract_masks<A>, s.n * s.k * all.strips, 0, stream, args);
  const int64_t warps = s.n * s.k * (2 * s.j + 1);
  return error != nullptr ? error : launch_each(logit_gradients<A>, warps * kWarp, stream, args);
}

template const char* finish_sums<float>(const BackwardSums&, const BackwardTables<float>&, void*);
template const char* finish_sums<double>(const BackwardSums&, const BackwardTables<double>&, void*);

}  // namespace sc_layers
