// y     = keep x + sum_k w_k (S_k (x - mean) + b_k): x is read, y written
// dL/dx = (keep + sum_k w_k S_k) g + constant + slope (x - mean): g and x are read, dL/dx written, with
//   constant = (grad_mean - r sum_k scale_k grad_bias_k) / (H W),  slope = -r^2 sum_k scale_k grad_scale_k / (H W),
//   r = rstd: the instance norm's part is r (q - mean(q) - x_hat mean(q x_hat)) for q = g sum_k w_k scale_k.
//
// keep stays a factor of its own in full precision: where no code acts, y is x to the last bit.
#include "backward.cuh"
#include "tiles.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct StreamArguments {
  const T* grad;  // null in the forward pass
  const T* x;
  T* result;
  const accumulator_t<T>* mean;
  const Norm<accumulator_t<T>>* norms;
  Tables<T> tables;
  Walk walk;
};

// kMany: more codes than one row of the tables holds.
template <typename T, bool kChannelsLast, bool kMany, bool kBackward>
__global__ void __launch_bounds__(kThreads) stream(const __grid_constant__ StreamArguments<T> args) {
  using A = accumulator_t<T>;
  const Walk& walk = args.walk;
  const Place place(walk, args.tables.samples);
  if (!place.exists) return;
  const Lane lane;
  const SampleTables<T> tables{args.tables, place.sample, lane.column};
  const int64_t offset = place.sample * walk.rows * walk.columns;
  const int first = place.column + 8 * lane.column;
  const auto norm_of = [&](int channel) -> Norm<A> {
    const int64_t plane = place.sample * args.tables.channels + min(channel, args.tables.channels - 1);
    if constexpr (kBackward) return load(args.norms + plane);
    return {load(args.mean + plane), A(0), A(0), A(0)};
  };
  // Coefficients of the columns of each block, and of the rows: w of pixels, S and b of channels.
  Codes<T> column_w[kBlocks], column_scale[kBlocks], column_bias[kBlocks], row_w[2], row_scale[2], row_bias[2];
  const auto load_column = [&](int group, int j) {
    const int column = place.column + lane.operand_column(j);
    if constexpr (!kChannelsLast) column_w[j] = tables.weights(group, column);
    if constexpr (kChannelsLast) column_scale[j] = tables.scale(group, column);
    if constexpr (kChannelsLast && !kBackward) column_bias[j] = tables.bias(group, column);
  };
  const auto load_row = [&](int group, int row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if constexpr (kChannelsLast) row_w[half] = tables.weights(group, row + 8 * half);
      if constexpr (!kChannelsLast) row_scale[half] = tables.scale(group, row + 8 * half);
      if constexpr (!kChannelsLast && !kBackward) row_bias[half] = tables.bias(group, row + 8 * half);
    }
  };
  A keeps[8];
  Norm<A> norms[8];
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    if constexpr (kChannelsLast) norms[e] = norm_of(first + e);
    if constexpr (!kChannelsLast) keeps[e] = tables.keep(first + e);
  }
  if constexpr (!kMany) {
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) load_column(0, j);
  }

  Feed<T, kBackward ? 2 : 1> feed(shared_memory(), walk);
  constexpr int kAhead = feed.kStages - 1;
  const int first_row = place.row + lane.row, steps = static_cast<int>(ceil_divide(place.end - place.row, kTileRows));
  const auto fetch = [&](int step) {
    if (step < steps) {
      feed.fetch(step, 0, args.x + offset, first_row + step * kTileRows, first);
      if constexpr (kBackward) feed.fetch(step, 1, args.grad + offset, first_row + step * kTileRows, first);
    }
    end_group();
  };
#pragma unroll
  for (int step = 0; step < kAhead; ++step) fetch(step);
  for (int step = 0; step < steps; ++step) {
    fetch(step + kAhead);
    const int row = first_row + step * kTileRows;
    if constexpr (!kMany) load_row(0, row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if constexpr (kChannelsLast) keeps[half] = tables.keep(row + 8 * half);
      if constexpr (!kChannelsLast) norms[half] = norm_of(row + 8 * half);
    }
    wait_for_copies<kAhead>();
    const Rows<T> x = feed.take(step, 0), grad = kBackward ? feed.take(step, kBackward) : x;
    Rows<T> result;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      A gain[4] = {}, shift[4] = {};
      for (int group = 0; group < (kMany ? args.tables.weight_groups() : 1); ++group) {
        if constexpr (kMany) {
          load_row(group, row);
          load_column(group, j);
        }
        if constexpr (kChannelsLast) {
          add_product<T>(gain, row_w, column_scale[j]);
          if constexpr (!kBackward) add_product<T>(shift, row_w, column_bias[j]);
        } else {
          add_product<T>(gain, row_scale, column_w[j]);
          if constexpr (!kBackward) add_product<T>(shift, row_bias, column_w[j]);
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        A pair[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const A value = value_of(x.row[half], 2 * j + e), keep = keeps[kChannelsLast ? half : 2 * j + e];
          const Norm<A>& norm = norms[kChannelsLast ? 2 * j + e : half];
          if constexpr (kBackward) {
            pair[e] = (keep + gain[2 * half + e]) * value_of(grad.row[half], 2 * j + e) +
                      (norm.constant + norm.slope * (value - norm.mean));
          } else {
            pair[e] = keep * value + (gain[2 * half + e] * (value - norm.mean) + shift[2 * half + e]);
          }
        }
        set_pair(result.row[half], j, pair[0], pair[1]);
      }
    }
    store_rows(args.result + offset, walk, row, first, result);
  }
}

template <bool kBackward, typename T>
const char* launch_stream(const Shape& shape, const Device& device, void* stream_, StreamArguments<T> args) {
  const int64_t stride = shape.channels_last ? shape.c : shape.h * shape.w;
  const bool wide = is_wide(args.x, stride) && is_wide(args.result, stride) && is_wide(args.grad, stride);
  args.walk = walk_of<T>(shape, device, wide);
  const int64_t blocks = ceil_divide(shape.n * args.walk.tiles * args.walk.parts, kWarps);
  const bool many = args.tables.weight_groups() > 1;
  const auto kernel = shape.channels_last
                          ? (many ? stream<T, true, true, kBackward> : stream<T, true, false, kBackward>)
                          : (many ? stream<T, false, true, kBackward> : stream<T, false, false, kBackward>);
  return launch(kernel, blocks, Feed<T, kBackward ? 2 : 1>::kBytes, stream_, args);
}

template <typename T>
const char* apply_of(const Apply& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  Scratch scratch(call.workspace);
  const Tables<T> tables = tables_of<T>(call.shape, scratch, false);
  const char* error = make_tables(call.shape, call.group, tables, stream);
  if (error != nullptr) return error;
  return launch_stream<false, T>(call.shape, device, stream,
                                 {nullptr, static_cast<const T*>(call.x), static_cast<T*>(call.y),
                                  static_cast<const A*>(call.group.mean), nullptr, tables, {}});
}

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
  A constant = 0, slope = 0;
  for (int code = 0; code < args.codes; ++code) {
    const int64_t at = first + static_cast<int64_t>(code) * args.channels;
    const A scale = load(args.scale + at);
    constant += scale * load(args.grad_bias + at);
    slope += scale * load(args.grad_scale + at);
  }
  const A rstd = load(args.rstd + plane), added = args.grad_mean == nullptr ? A(0) : load(args.grad_mean + plane);
  store(args.norms + plane, Norm<A>{load(args.mean + plane), (added - rstd * constant) / args.pixels,
                                    -rstd * rstd * slope / args.pixels, A(0)});
}

template <typename T>
const char* input_of(const BackwardInput& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  const Shape& shape = call.shape;
  const auto numbers = [](const void* pointer) { return static_cast<const A*>(pointer); };
  const BackwardTables<T> all = backward_tables_of<T>(shape, device, call.workspace);
  const NormArguments<A> norms{numbers(call.group.scale), numbers(call.grad_scale), numbers(call.grad_bias),
                               numbers(call.group.mean),  numbers(call.group.rstd), numbers(call.grad_mean),
                               all.norms,                 shape.n * shape.c,        static_cast<int>(shape.c),
                               static_cast<int>(shape.k), static_cast<A>(shape.h * shape.w)};
  const char* error = launch_each(find_norms<A>, shape.n * shape.c, stream, norms);
  if (error != nullptr) return error;
  return launch_stream<true, T>(shape, device, stream,
                                {static_cast<const T*>(call.grad), static_cast<const T*>(call.x),
                                 static_cast<T*>(call.grad_x), nullptr, all.norms, all.tables, {}});
}

template <typename T>
size_t workspace_of(const Shape& shape) {
  Scratch scratch(nullptr);
  tables_of<T>(shape, scratch, false);
  return scratch.bytes();
}

}  // namespace

size_t apply_workspace(const Shape& shape, const Device&) {
  return SC_LAYERS_DISPATCH(shape.scalar, workspace_of, shape);
}

const char* launch_apply(const Apply& call, const Device& device, void* stream) {
  return SC_LAYERS_DISPATCH(call.shape.scalar, apply_of, call, device, stream);
}

const char* launch_backward_input(const BackwardInput& call, const Device& device, void* stream) {
  return SC_LAYERS_DISPATCH(call.shape.scalar, input_of, call, device, stream);
}

}  // namespace sc_layers
