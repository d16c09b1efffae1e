// dL/dx = keep g + g sum_k w_k S_k - (r mean(q) + r^2 mean(q x_hat) (x - mean)) + grad_mean / (H W),
// with r = rstd, q = g sum_k w_k scale_k;  mean(q) = sum_k scale_k grad_bias_k / (H W), mean(q x_hat) likewise from
// grad_scale. g and x are read, dL/dx is written.
#include "backward.cuh"
#include "plain.cuh"
#include "tiles.cuh"

namespace sc_layers {
namespace {

template <typename A>
struct NormArguments {
  const A* scale;
  const A* grad_scale;
  const A* grad_bias;
  const A* mean;
  const A* rstd;
  const A* grad_mean;
  Norm<A>* norms;
  int64_t planes;
  int channels, codes;
  A pixels;
};

// A thread takes a plane.
template <typename A>
__global__ void __launch_bounds__(kThreads) find_norms(const __grid_constant__ NormArguments<A> args) {
  const int64_t plane = global_thread();
  if (plane >= args.planes) return;
  const int64_t first = plane / args.channels * args.codes * args.channels + plane % args.channels;
  A mean_q = 0, mean_qx = 0;
  for (int code = 0; code < args.codes; ++code) {
    const int64_t at = first + static_cast<int64_t>(code) * args.channels;
    const A scale = load(args.scale + at);
    mean_q += scale * load(args.grad_bias + at);
    mean_qx += scale * load(args.grad_scale + at);
  }
  const A rstd = load(args.rstd + plane), added = args.grad_mean == nullptr ? A(0) : load(args.grad_mean + plane);
  const Norm<A> norm{load(args.mean + plane), (added - rstd * mean_q) / args.pixels,
                     -rstd * rstd * mean_qx / args.pixels, A(0)};
  store(args.norms + plane, norm);
}

template <typename T>
struct InputArguments {
  const T* grad;
  const T* x;
  T* grad_x;
  const Norm<float>* norms;
  Tables<float> tables;
  Walk walk;
};

// kMany: more codes than one row of the tables holds.
template <typename T, bool kChannelsLast, bool kMany>
__global__ void __launch_bounds__(kThreads) input_gradient(const __grid_constant__ InputArguments<T> args) {
  using Row = typename SampleTables<T>::Row;
  const Walk& walk = args.walk;
  const Place place(walk, args.tables.samples);
  if (!place.exists) return;
  const Lane lane;
  const SampleTables<T> tables{args.tables, place.sample, lane.column};
  const int64_t offset = place.sample * walk.rows * walk.columns;
  const int first = place.column + 8 * lane.column;
  const auto norm_of = [&](int channel) {
    return load(args.norms + place.sample * args.tables.channels + min(channel, args.tables.channels - 1));
  };
  Row column_codes[kBlocks], row_codes[2];  // w of a pixel, S of a channel
  const auto load_column = [&](int group, int j) {
    const int column = place.column + lane.operand_column(j);
    column_codes[j] = kChannelsLast ? tables.scale(group, column) : tables.weights(group, column);
  };
  const auto load_row = [&](int group, int row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = row + 8 * half;
      row_codes[half] = kChannelsLast ? tables.weights(group, at) : tables.scale(group, at);
    }
  };
  float keeps[8];
  Norm<float> norms[8];
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    if constexpr (kChannelsLast) norms[e] = norm_of(first + e);
    else keeps[e] = tables.keep(first + e);
  }
  if constexpr (!kMany) {
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) load_column(0, j);
  }

  Rows<T> next_grad = {}, next_x = {};
  const auto load_next = [&](int row) {
    next_grad = load_rows(args.grad + offset, walk, row, first);
    next_x = load_rows(args.x + offset, walk, row, first);
  };
  if constexpr (kAhead<T>) load_next(place.row + lane.row);
  for (int row = place.row + lane.row; row - lane.row < place.end; row += kTileRows) {
    if constexpr (!kAhead<T>) load_next(row);
    const Rows<T> grad = next_grad, x = next_x;
    if (kAhead<T> && row - lane.row + kTileRows < place.end) load_next(row + kTileRows);
    if constexpr (!kMany) load_row(0, row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if constexpr (kChannelsLast) keeps[half] = tables.keep(row + 8 * half);
      else norms[half] = norm_of(row + 8 * half);
    }
    Rows<T> result;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      float gain[4] = {};
      for (int group = 0; group < (kMany ? args.tables.weight_groups() : 1); ++group) {
        if constexpr (kMany) {
          load_row(group, row);
          load_column(group, j);
        }
        add_product(gain, row_codes, column_codes[j]);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float pair[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const Norm<float>& norm = norms[kChannelsLast ? 2 * j + e : half];
          const float keep = keeps[kChannelsLast ? half : 2 * j + e];
          const float centred = value_of(x.row[half], 2 * j + e) - norm.mean;
          pair[e] = (keep + gain[2 * half + e]) * value_of(grad.row[half], 2 * j + e) +
                    (norm.constant + norm.slope * centred);
        }
        set_pair(result.row[half], j, pair[0], pair[1]);
      }
    }
    store_rows(args.grad_x + offset, walk, row, first, result);
  }
}

struct PlainInput {
  const double* grad;
  const double* x;
  double* grad_x;
  const Norm<double>* norms;
  Tables<double> tables;
  bool channels_last;
};
__global__ void __launch_bounds__(kThreads) plain_input_gradient(const __grid_constant__ PlainInput args) {
  const Tables<double>& tables = args.tables;
  const Element element(tables, args.channels_last);
  if (!element.exists) return;
  double gain = keep_at(tables, element.sample, element.pixel);
  for (int code = 0; code < tables.codes; ++code) {
    gain += weight_at(tables, element.sample, code, element.pixel) *
            style_at(tables, element.sample, code, element.channel, 0);
  }
  const Norm<double> norm = load(args.norms + element.sample * tables.channels + element.channel);
  const double centred = load(args.x + element.at) - norm.mean;
  store(args.grad_x + element.at, gain * load(args.grad + element.at) + (norm.constant + norm.slope * centred));
}

template <typename T>
const char* input_of(const BackwardInput& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  const Shape& shape = call.shape;
  const auto numbers = [](const void* pointer) { return static_cast<const A*>(pointer); };
  const BackwardTables<A> all = backward_tables_of<T>(shape, device, call.workspace);
  const NormArguments<A> norms{numbers(call.group.scale), numbers(call.grad_scale), numbers(call.grad_bias),
                               numbers(call.group.mean),  numbers(call.group.rstd), numbers(call.grad_mean),
                               all.norms,                 shape.n * shape.c,        static_cast<int>(shape.c),
                               static_cast<int>(shape.k), static_cast<A>(shape.h * shape.w)};
  const char* error = launch_each(find_norms<A>, shape.n * shape.c, stream, norms);
  if (error != nullptr) return error;
  const T* grad = static_cast<const T*>(call.grad);
  const T* x = static_cast<const T*>(call.x);
  T* grad_x = static_cast<T*>(call.grad_x);
  if constexpr (std::is_same_v<T, double>) {
    return launch_each(plain_input_gradient, x_size(shape), stream,
                       PlainInput{grad, x, grad_x, all.norms, all.tables, shape.channels_last});
  } else {
    const int64_t stride = shape.channels_last ? shape.c : shape.h * shape.w;
    const Walk walk = walk_of<T>(shape, device, is_wide(grad, stride) && is_wide(x, stride) && is_wide(grad_x, stride));
    const int64_t blocks = ceil_divide(shape.n * walk.tiles * walk.parts, kWarps);
    const bool many = all.tables.weight_groups() > 1;
    const auto kernel = shape.channels_last
                            ? (many ? input_gradient<T, true, true> : input_gradient<T, true, false>)
                            : (many ? input_gradient<T, false, true> : input_gradient<T, false, false>);
    return launch(kernel, blocks, 0, stream, InputArguments<T>{grad, x, grad_x, all.norms, all.tables, walk});
  }
}

}  // namespace

const char* launch_backward_input(const BackwardInput& call, const Device& device, void* stream) {
  return SC_LAYERS_DISPATCH(call.shape.scalar, input_of, call, device, stream);
}

}  // namespace sc_layers
