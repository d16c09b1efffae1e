// With g = dL/dy:  sum_hw g w_k  and  sum_hw g (x - mean) w_k  of every channel,
//                  sum_c g (S_k (x - mean) + b_k)  and  sum_c g x  of every pixel. g and x are read once.
//
// Both are products of the features with the tables, one contracted over columns and one over rows, by tensor cores; for
// the latter 8x8 blocks are transposed within registers. g and g (x - mean) are split into bfloat16 pieces: the sums are
// as exact as the pieces, and have bfloat16's range. Tensor cores cut off what they add up, so every step starts from 0
// and its result is added by ordinary arithmetic. All orders are fixed.
#include "backward.cuh"
#include "plain.cuh"
#include "tiles.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct SumsArguments {
  const T* grad;
  const T* x;
  const float* mean;
  Walk walk;
  BackwardTables<float> all;
};

// Operands of one 8x8 block of a table, transposed: pairs of its rows of code i, in lane 4 i + t.
template <int kPieces>
__device__ inline Codes<kPieces> transposed(const Codes<kPieces>& codes) {
  Codes<kPieces> result;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) result.piece[p] = transpose(codes.piece[p]);
  return result;
}

// The pieces of four 8x8 blocks of features: [0], [1] the upper and lower rows on the left, [2], [3] on the right.
template <int kPieces>
struct Square {
  unsigned piece[kPieces][4];

  __device__ void set(int block, float low, float high) {
    unsigned pieces[kPieces];
    split(low, high, pieces);
#pragma unroll
    for (int p = 0; p < kPieces; ++p) piece[p][block] = pieces[p];
  }
  __device__ Square turned() const {
    Square result;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      result.piece[p][0] = transpose(piece[p][0]);
      result.piece[p][1] = transpose(piece[p][2]);
      result.piece[p][2] = transpose(piece[p][1]);
      result.piece[p][3] = transpose(piece[p][3]);
    }
    return result;
  }
};

// sum += square * (two blocks of a table, one above the other), but for pieces below the last bit that counts.
template <int kFeature, int kTable>
__device__ inline void add_square(float (&sum)[4], const Square<kFeature>& square, const Codes<kTable>& upper,
                                  const Codes<kTable>& lower) {
#pragma unroll
  for (int below = kTable - 1; below >= 0; --below) {
#pragma unroll
    for (int p = 0; p < kFeature; ++p) {
      if (p <= below) multiply(sum, square.piece[p], {upper.piece[below - p], lower.piece[below - p]});
    }
  }
}

template <int kCount>
__device__ inline void add(float (&sum)[kCount], const float (&other)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum[i] += other[i];
}

template <typename T>
constexpr bool kSumsAhead = false;

template <typename T, bool kChannelsLast>
struct SumsKernel {
  static constexpr int kPieces = RowOf<T>::kPieces;
  static constexpr int kGradPieces = std::is_same_v<T, Bfloat16> ? 1 : kPieces;  // a bfloat16 is one
  static constexpr int kOwned = owned_tiles<T>(kChannelsLast);
  static constexpr int kRowSums = kChannelsLast ? 2 : 1;     // sums over rows a code: channels have two
  static constexpr int kColumnSums = kChannelsLast ? 1 : 2;  // and over columns
  static constexpr int kWidth = kGroup * kColumnSums;
  static constexpr int kSteps = 64 / kWidth;  // whose sums over columns are kept in shared memory
  static constexpr int kKept = kSteps * kTileRows * kWidth;  // numbers of a warp
  using Row = Codes<kPieces>;
};

// Hands on the sums over columns of the last steps: adds up those of warps side by side.
template <typename T, bool kChannelsLast>
__device__ inline void hand_on(const SumsArguments<T>& args, const float* kept, int64_t first, int row_warps,
                               int block_row, int step) {
  using Kernel = SumsKernel<T, kChannelsLast>;
  const SumsCut& cut = args.all.cut;
  const int slots = args.all.slots;
  float* sums = kChannelsLast ? args.all.pixel_sums : args.all.channel_sums;
  for (int i = threadIdx.x; i < row_warps * Kernel::kKept; i += kThreads) {
    const int row_warp = i / Kernel::kKept, inner = i % Kernel::kKept;
    const int in_part = step * kTileRows + inner / Kernel::kWidth, slot = inner % kGroup;
    const int row = block_row + row_warp * cut.rows_each + in_part;
    if (in_part >= cut.rows_each || row >= args.walk.rows || slot >= slots) continue;
    float sum = 0;
    for (int warp = 0; warp < cut.column_warps; ++warp) {
      sum += kept[(row_warp * cut.column_warps + warp) * Kernel::kKept + inner];
    }
    const int which = inner % Kernel::kWidth / kGroup;
    store(sums + ((first + row) * Kernel::kColumnSums + which) * slots + slot, sum);
  }
}

template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads) sums(const __grid_constant__ SumsArguments<T> args) {
  using Kernel = SumsKernel<T, kChannelsLast>;
  using Row = typename Kernel::Row;
  constexpr int kOwned = Kernel::kOwned;
  float* kept = reinterpret_cast<float*>(shared_memory());  // [kWarps, kSteps * kTileRows, kWidth]
  const Walk& walk = args.walk;
  const SumsCut& cut = args.all.cut;
  const Lane lane;
  const int warp = threadIdx.x / kWarp, row_warps = kWarps / cut.column_warps;
  int64_t block = blockIdx.x;
  const int column_block = static_cast<int>(block % cut.column_blocks);
  block /= cut.column_blocks;
  const int group = static_cast<int>(block % args.all.tables.groups);
  block /= args.all.tables.groups;
  const int row_block = static_cast<int>(block % cut.row_blocks);
  const int64_t sample = block / cut.row_blocks;
  const int row_warp = warp / cut.column_warps;
  const int block_row = row_block * row_warps * cut.rows_each, part_row = block_row + row_warp * cut.rows_each;
  const int first = (column_block * cut.column_warps + warp % cut.column_warps) * kOwned * kTileColumns;
  const SampleTables<T> tables{args.all.tables, sample, lane.column};
  const int64_t offset = sample * walk.rows * walk.columns;
  const auto mean_of = [&](int channel) {
    return load(args.mean + sample * args.all.tables.channels + min(channel, args.all.tables.channels - 1));
  };

  // What belongs to the columns: w of pixels; S, b and the mean of channels.
  Row column_w[kOwned][kBlocks] = {}, column_scale[kBlocks] = {}, column_bias[kBlocks] = {};
  float column_mean[8] = {};
#pragma unroll
  for (int tile = 0; tile < kOwned; ++tile) {
    if (first + tile * kTileColumns >= walk.columns) continue;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      const int column = first + tile * kTileColumns + lane.operand_column(j);
      if constexpr (kChannelsLast) {
        column_scale[j] = transposed(tables.scale(group, column));
        column_bias[j] = transposed(tables.bias(group, column));
      } else {
        column_w[tile][j] = transposed(tables.weights(group, column));
      }
    }
  }
  if constexpr (kChannelsLast) {
#pragma unroll
    for (int e = 0; e < 8; ++e) column_mean[e] = mean_of(first + 8 * lane.column + e);
  }

  Rows<T> next_grad = {}, next_x = {};
  const auto load_next = [&](int row, int column) {
    next_grad = load_rows(args.grad + offset, walk, row, column + 8 * lane.column);
    next_x = load_rows(args.x + offset, walk, row, column + 8 * lane.column);
  };
  if constexpr (kSumsAhead<T>) load_next(part_row + lane.row, first);
  float over_rows[kOwned][kBlocks / 2][Kernel::kRowSums][4] = {};
  for (int step = 0; step * kTileRows < cut.rows_each; ++step) {
    const int step_row = part_row + step * kTileRows, row = step_row + lane.row;
    float over_columns[Kernel::kColumnSums][4] = {};
    if (step_row < walk.rows) {
      Row row_w[2], row_scale[2], row_bias[2];
      float row_mean[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if constexpr (kChannelsLast) {
          row_w[half] = transposed(tables.weights(group, row + 8 * half));
        } else {
          row_scale[half] = transposed(tables.scale(group, row + 8 * half));
          row_bias[half] = transposed(tables.bias(group, row + 8 * half));
          row_mean[half] = mean_of(row + 8 * half);
        }
      }
#pragma unroll
      for (int tile = 0; tile < kOwned; ++tile) {
        const int tile_column = first + tile * kTileColumns;
        if (tile_column >= walk.columns) continue;
        if constexpr (!kSumsAhead<T>) load_next(row, tile_column);
        const Rows<T> grad = next_grad, x = next_x;
        if constexpr (kSumsAhead<T>) {
          const bool last = tile + 1 == kOwned || tile_column + kTileColumns >= walk.columns;
          if (!last) load_next(row, tile_column + kTileColumns);
          else if ((step + 1) * kTileRows < cut.rows_each) load_next(row + kTileRows, first);
        }
#pragma unroll
        for (int pair = 0; pair < kBlocks / 2; ++pair) {
          Square<Kernel::kGradPieces> g;
          Square<Kernel::kPieces> moved;  // g (x - mean)
#pragma unroll
          for (int block = 0; block < 4; ++block) {
            const int half = block % 2, e = 4 * pair + 2 * (block / 2);
            const float low = value_of(grad.row[half], e), high = value_of(grad.row[half], e + 1);
            g.set(block, low, high);
            const float low_mean = kChannelsLast ? column_mean[e] : row_mean[half];
            const float high_mean = kChannelsLast ? column_mean[e + 1] : row_mean[half];
            moved.set(block, low * (value_of(x.row[half], e) - low_mean),
                      high * (value_of(x.row[half], e + 1) - high_mean));
          }
          const int j = 2 * pair;
          const auto g_turned = g.turned();
          const auto moved_turned = moved.turned();
          float rows[Kernel::kRowSums][4] = {}, columns[Kernel::kColumnSums][4] = {};
          if constexpr (kChannelsLast) {
            add_square(columns[0], g, column_bias[j], column_bias[j + 1]);
            add_square(columns[0], moved, column_scale[j], column_scale[j + 1]);
            add_square(rows[0], g_turned, row_w[0], row_w[1]);
            add_square(rows[1], moved_turned, row_w[0], row_w[1]);
          } else {
            add_square(columns[0], g, column_w[tile][j], column_w[tile][j + 1]);
            add_square(columns[1], moved, column_w[tile][j], column_w[tile][j + 1]);
            add_square(rows[0], g_turned, row_bias[0], row_bias[1]);
            add_square(rows[0], moved_turned, row_scale[0], row_scale[1]);
          }
#pragma unroll
          for (int i = 0; i < Kernel::kRowSums; ++i) add(over_rows[tile][pair][i], rows[i]);
#pragma unroll
          for (int i = 0; i < Kernel::kColumnSums; ++i) add(over_columns[i], columns[i]);
        }
      }
    }
    float* mine = kept + warp * Kernel::kKept + (step % Kernel::kSteps * kTileRows + lane.row) * Kernel::kWidth;
#pragma unroll
    for (int i = 0; i < Kernel::kColumnSums; ++i) {
      float* at = mine + i * kGroup + 2 * lane.column;
      at[0] = over_columns[i][0];
      at[1] = over_columns[i][1];
      at[8 * Kernel::kWidth] = over_columns[i][2];
      at[8 * Kernel::kWidth + 1] = over_columns[i][3];
    }
    const int next = step + 1;
    if (next % Kernel::kSteps == 0 || next * kTileRows >= cut.rows_each) {
      const int64_t part = (group * cut.column_blocks + column_block) * args.all.tables.samples + sample;
      __syncthreads();
      hand_on<T, kChannelsLast>(args, kept, part * walk.rows, row_warps, block_row,
                                step / Kernel::kSteps * Kernel::kSteps);
      __syncthreads();
    }
  }

  const int slots = args.all.slots, parts = cut.row_blocks * row_warps;
  const int64_t part = (group * parts + row_block * row_warps + row_warp) * args.all.tables.samples + sample;
  float* result = kChannelsLast ? args.all.channel_sums : args.all.pixel_sums;
#pragma unroll
  for (int tile = 0; tile < kOwned; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int pair = 0; pair < kBlocks / 2; ++pair) {
        const int column = first + tile * kTileColumns + lane.operand_column(2 * pair + i / 2);
        const int slot = 2 * lane.column + i % 2;
        if (column >= walk.columns || slot >= slots) continue;
#pragma unroll
        for (int which = 0; which < Kernel::kRowSums; ++which) {
          store(result + ((part * walk.columns + column) * Kernel::kRowSums + which) * slots + slot,
                over_rows[tile][pair][which][i]);
        }
      }
    }
  }
}

struct PlainSums {
  const double* grad;
  const double* x;
  const double* mean;
  BackwardTables<double> all;
  bool channels_last;
};

// A warp takes a channel or a pixel, and all codes of it.
__global__ void __launch_bounds__(kThreads) plain_sums(const __grid_constant__ PlainSums args) {
  const Tables<double>& tables = args.all.tables;
  const int channels = tables.channels, pixels = tables.pixels, slots = args.all.slots, lane = threadIdx.x % kWarp;
  const int64_t index = global_thread() / kWarp, sample = index / (channels + pixels);
  const int inner = static_cast<int>(index % (channels + pixels));
  if (sample >= tables.samples) return;
  const bool is_channel = inner < channels;
  for (int code = 0; code <= tables.codes; ++code) {
    double plain = 0, moved = 0;
    for (int i = lane; i < (is_channel ? pixels : channels); i += kWarp) {
      const int channel = is_channel ? inner : i, pixel = is_channel ? i : inner - channels;
      const int64_t at = args.channels_last ? static_cast<int64_t>(pixel) * channels + channel
                                            : static_cast<int64_t>(channel) * pixels + pixel;
      const double grad = load(args.grad + sample * channels * pixels + at);
      const double centred = load(args.x + sample * channels * pixels + at) - load(args.mean + sample * channels + channel);
      const double weight = is_channel ? weight_at(tables, sample, code, pixel) : 1;
      plain += grad * weight * (is_channel ? 1 : style_at(tables, sample, code, channel, 1));
      moved += grad * weight * centred * (is_channel ? 1 : style_at(tables, sample, code, channel, 0));
    }
    plain = team_sum(plain);
    moved = team_sum(moved);
    if (lane != 0) continue;
    const int group = code / kGroup, slot = code % kGroup;
    if (is_channel) {
      double* sums = args.all.channel_sums + ((group * tables.samples + sample) * channels + inner) * 2 * slots + slot;
      store(sums, plain);
      store(sums + slots, moved);
    } else {
      const int64_t row = (group * tables.samples + sample) * pixels + inner - channels;
      store(args.all.pixel_sums + row * slots + slot, plain + moved);
    }
  }
}

template <typename T>
const char* sums_of(const BackwardSums& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  const Shape& shape = call.shape;
  const BackwardTables<A> all = backward_tables_of<T>(shape, device, call.workspace);
  const char* error = make_tables<T>(shape, call.group, all.tables, stream);
  if (error != nullptr) return error;
  const T* grad = static_cast<const T*>(call.grad);
  const T* x = static_cast<const T*>(call.x);
  const A* mean = static_cast<const A*>(call.group.mean);
  if constexpr (std::is_same_v<T, double>) {
    const int64_t warps = shape.n * (shape.c + shape.h * shape.w);
    error = launch_each(plain_sums, warps * kWarp, stream, PlainSums{grad, x, mean, all, shape.channels_last});
  } else {
    const int64_t pixels = shape.h * shape.w, stride = shape.channels_last ? shape.c : pixels;
    const Walk walk{static_cast<int>(shape.channels_last ? pixels : shape.c), static_cast<int>(stride), 0, 0, 0,
                    is_wide(grad, stride) && is_wide(x, stride)};
    const int64_t blocks = shape.n * all.tables.groups * all.cut.column_blocks * all.cut.row_blocks;
    const int shared = kWarps * SumsKernel<T, true>::kKept * sizeof(float);
    static_assert(SumsKernel<T, true>::kKept == SumsKernel<T, false>::kKept, "one size for both layouts");
    error = launch(shape.channels_last ? sums<T, true> : sums<T, false>, blocks, shared, stream,
                   SumsArguments<T>{grad, x, mean, walk, all});
  }
  return error != nullptr ? error : finish_sums<A>(call, all, stream);
}

template <typename T>
size_t workspace_of(const Shape& shape, const Device& device) {
  return backward_tables_of<T>(shape, device, nullptr).bytes;
}

}  // namespace

size_t backward_workspace(const Shape& shape, const Device& device) {
  return SC_LAYERS_DISPATCH(shape.scalar, workspace_of, shape, device);
}

const char* launch_backward_sums(const BackwardSums& call, const Device& device, void* stream) {
  return SC_LAYERS_DISPATCH(call.shape.scalar, sums_of, call, device, stream);
}

}  // namespace sc_layers
