// y = keep x + sum_k w_k (S_k (x - mean) + b_k): x is read once more, y written.
//
// keep stays a float32 factor of its own: where no code acts, y is x to the last bit.
#include "plain.cuh"
#include "tiles.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct ApplyArguments {
  const T* x;
  const float* mean;
  T* y;
  Tables<float> tables;
  Walk walk;
};

// kMany: more codes than one row of the tables holds.
template <typename T, bool kChannelsLast, bool kMany>
__global__ void __launch_bounds__(kThreads) apply(const __grid_constant__ ApplyArguments<T> args) {
  using Row = typename SampleTables<T>::Row;
  const Walk& walk = args.walk;
  const Place place(walk, args.tables.samples);
  if (!place.exists) return;
  const Lane lane;
  const SampleTables<T> tables{args.tables, place.sample, lane.column};
  const int64_t offset = place.sample * walk.rows * walk.columns;
  const int first = place.column + 8 * lane.column;
  const auto mean_of = [&](int channel) {
    return load(args.mean + place.sample * args.tables.channels + min(channel, args.tables.channels - 1));
  };
  // Codes of the columns of one block, and of the rows; of pixels in w, of channels in scale and bias.
  Row column_w[kBlocks], column_scale[kBlocks], column_bias[kBlocks], row_w[2], row_scale[2], row_bias[2];
  const auto load_column = [&](int group, int j) {
    const int column = place.column + lane.operand_column(j);
    if constexpr (kChannelsLast) {
      column_scale[j] = tables.scale(group, column);
      column_bias[j] = tables.bias(group, column);
    } else {
      column_w[j] = tables.weights(group, column);
    }
  };
  const auto load_row = [&](int group, int row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if constexpr (kChannelsLast) {
        row_w[half] = tables.weights(group, row + 8 * half);
      } else {
        row_scale[half] = tables.scale(group, row + 8 * half);
        row_bias[half] = tables.bias(group, row + 8 * half);
      }
    }
  };
  float along_columns[8], along_rows[2];  // keep of a pixel, mean of a channel
#pragma unroll
  for (int e = 0; e < 8; ++e) along_columns[e] = kChannelsLast ? mean_of(first + e) : tables.keep(first + e);
  if constexpr (!kMany) {
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) load_column(0, j);
  }

  Rows<T> next = {};
  if constexpr (kAhead<T>) next = load_rows(args.x + offset, walk, place.row + lane.row, first);
  for (int row = place.row + lane.row; row - lane.row < place.end; row += kTileRows) {
    const Rows<T> x = kAhead<T> ? next : load_rows(args.x + offset, walk, row, first);
    if (kAhead<T> && row - lane.row + kTileRows < place.end) {
      next = load_rows(args.x + offset, walk, row + kTileRows, first);
    }
    if constexpr (!kMany) load_row(0, row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      along_rows[half] = kChannelsLast ? tables.keep(row + 8 * half) : mean_of(row + 8 * half);
    }
    Rows<T> y;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      float gain[4] = {}, shift[4] = {};
      for (int group = 0; group < (kMany ? args.tables.weight_groups() : 1); ++group) {
        if constexpr (kMany) {
          load_row(group, row);
          load_column(group, j);
        }
        if constexpr (kChannelsLast) {
          add_product(gain, row_w, column_scale[j]);
          add_product(shift, row_w, column_bias[j]);
        } else {
          add_product(gain, row_scale, column_w[j]);
          add_product(shift, row_bias, column_w[j]);
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float pair[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float value = value_of(x.row[half], 2 * j + e);
          const float mean = kChannelsLast ? along_columns[2 * j + e] : along_rows[half];
          const float keep = kChannelsLast ? along_rows[half] : along_columns[2 * j + e];
          pair[e] = keep * value + (gain[2 * half + e] * (value - mean) + shift[2 * half + e]);
        }
        set_pair(y.row[half], j, pair[0], pair[1]);
      }
    }
    store_rows(args.y + offset, walk, row, first, y);
  }
}

struct PlainApply {
  const double* x;
  const double* mean;
  double* y;
  Tables<double> tables;
  bool channels_last;
};
__global__ void __launch_bounds__(kThreads) plain_apply(const __grid_constant__ PlainApply args) {
  const Tables<double>& tables = args.tables;
  const Element element(tables, args.channels_last);
  if (!element.exists) return;
  const double x = load(args.x + element.at);
  const double centred = x - load(args.mean + element.sample * tables.channels + element.channel);
  double y = keep_at(tables, element.sample, element.pixel) * x;
  for (int code = 0; code < tables.codes; ++code) {
    y += weight_at(tables, element.sample, code, element.pixel) *
         (style_at(tables, element.sample, code, element.channel, 0) * centred +
          style_at(tables, element.sample, code, element.channel, 1));
  }
  store(args.y + element.at, y);
}

template <typename T>
const char* apply_of(const Apply& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  const Shape& shape = call.shape;
  Scratch scratch(call.workspace);
  const Tables<A> tables = tables_of<T>(shape, scratch);
  const char* error = make_tables<T>(shape, call.group, tables, stream);
  if (error != nullptr) return error;
  const T* x = static_cast<const T*>(call.x);
  T* y = static_cast<T*>(call.y);
  const A* mean = static_cast<const A*>(call.group.mean);
  if constexpr (std::is_same_v<T, double>) {
    return launch_each(plain_apply, x_size(shape), stream, PlainApply{x, mean, y, tables, shape.channels_last});
  } else {
    const int64_t stride = shape.channels_last ? shape.c : shape.h * shape.w;
    const Walk walk = walk_of<T>(shape, device, is_wide(x, stride) && is_wide(y, stride));
    const int64_t blocks = ceil_divide(shape.n * walk.tiles * walk.parts, kWarps);
    const bool many = tables.weight_groups() > 1;
    const auto kernel = shape.channels_last ? (many ? apply<T, true, true> : apply<T, true, false>)
                                            : (many ? apply<T, false, true> : apply<T, false, false>);
    return launch(kernel, blocks, 0, stream, ApplyArguments<T>{x, mean, y, tables, walk});
  }
}

template <typename T>
size_t workspace_of(const Shape& shape) {
  Scratch scratch(nullptr);
  tables_of<T>(shape, scratch);
  return scratch.bytes();
}

}  // namespace

size_t apply_workspace(const Shape& shape, const Device&) {
  return SC_LAYERS_DISPATCH(shape.scalar, workspace_of, shape);
}

const char* launch_apply(const Apply& call, const Device& device, void* stream) {
  return SC_LAYERS_DISPATCH(call.shape.scalar, apply_of, call, device, stream);
}

}  // namespace sc_layers
