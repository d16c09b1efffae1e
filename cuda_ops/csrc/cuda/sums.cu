// With g = dL/dy:  sum_hw g w_k  and  sum_hw g (x - mean) w_k  of every channel,
//                  sum_c g (S_k (x - mean) + b_k)  and  sum_c g x  of every pixel. g and x are read once.
//
// Both are products of the features with the tables, one contracted over columns and one over rows, by tensor cores; for
// the latter 8x8 blocks are transposed within registers. g and g (x - mean) are split into bfloat16 pieces: the sums are
// as exact as the pieces, and have bfloat16's range. Tensor cores cut off what they add up, so every step starts from 0
// and its result is added by ordinary arithmetic. All orders are fixed.
#include "backward.cuh"
#include "tiles.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct SumsArguments {
  const T* grad;
  const T* x;
  const accumulator_t<T>* mean;
  Walk walk;
  BackwardTables<T> all;
};

// Of an 8x8 block of a table: pairs of its rows of code i, in lane 4 i + t.
template <typename T>
__device__ inline Codes<T> transposed(const Codes<T>& codes) {
  Codes<T> result;
#pragma unroll
  for (int p = 0; p < Format<T>::kPieces; ++p) result.piece[p] = transpose(codes.piece[p]);
  return result;
}

// Four 8x8 blocks of features in pieces: [0], [1] the upper and lower rows on the left, [2], [3] on the right.
template <typename T, int kPieces>
struct Square {
  typename Format<T>::Word piece[kPieces][4];

  __device__ void set(int block, accumulator_t<T> low, accumulator_t<T> high) {
    typename Format<T>::Word pieces[kPieces];
    split<kPieces>(low, high, pieces);
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
template <typename T, int kPieces>
__device__ inline void add_square(accumulator_t<T> (&sum)[4], const Square<T, kPieces>& square, const Codes<T>& upper,
                                  const Codes<T>& lower) {
#pragma unroll
  for (int below = Format<T>::kPieces - 1; below >= 0; --below) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      if (p <= below) multiply(sum, square.piece[p], {upper.piece[below - p], lower.piece[below - p]});
    }
  }
}

// Blocks of a multiprocessor at a time: registers hold so many.
template <typename T>
constexpr int kBlocksEach = sizeof(T) == 2 ? 3 : sizeof(T) == 4 ? 2 : 1;

template <typename T, bool kChannelsLast>
struct SumsKernel {
  static constexpr int kPieces = Format<T>::kPieces;
  static constexpr int kGradPieces = std::is_same_v<T, Bfloat16> ? 1 : kPieces;  // a bfloat16 is one
  static constexpr int kRowSums = kChannelsLast ? 2 : 1;     // sums over rows a code: channels have two
  static constexpr int kColumnSums = kChannelsLast ? 1 : 2;  // and over columns
  static constexpr int kWidth = kGroup * kColumnSums;
  static constexpr int kSteps = 256 / kWidth / static_cast<int>(sizeof(accumulator_t<T>));  // kept in shared memory
  static constexpr int kKept = kSteps * kTileRows * kWidth;  // numbers of a warp
  static constexpr int kFeedBytes = Feed<T, 2>::kBytes;
  static constexpr int kSharedBytes = kFeedBytes + kWarps * kKept * static_cast<int>(sizeof(accumulator_t<T>));
};

// Hands on the sums over columns of the last steps: adds up those of warps side by side.
template <typename T, bool kChannelsLast>
__device__ inline void hand_on(const SumsArguments<T>& args, const accumulator_t<T>* kept, int64_t first, int row_warps,
                               int block_row, int step) {
  using Kernel = SumsKernel<T, kChannelsLast>;
  const SumsCut& cut = args.all.cut;
  const int slots = args.all.slots;
  accumulator_t<T>* sums = kChannelsLast ? args.all.pixel_sums : args.all.channel_sums;
  for (int i = threadIdx.x; i < row_warps * Kernel::kKept; i += kThreads) {
    const int row_warp = i / Kernel::kKept, inner = i % Kernel::kKept;
    const int in_part = step * kTileRows + inner / Kernel::kWidth, slot = inner % kGroup;
    const int row = block_row + row_warp * cut.rows_each + in_part;
    if (in_part >= cut.rows_each || row >= args.walk.rows || slot >= slots) continue;
    accumulator_t<T> sum = 0;
    for (int warp = 0; warp < cut.column_warps; ++warp) {
      sum += kept[(row_warp * cut.column_warps + warp) * Kernel::kKept + inner];
    }
    const int which = inner % Kernel::kWidth / kGroup;
    store(sums + ((first + row) * Kernel::kColumnSums + which) * slots + slot, sum);
  }
}

template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, kBlocksEach<T>) sums(const __grid_constant__ SumsArguments<T> args) {
  using Kernel = SumsKernel<T, kChannelsLast>;
  using A = accumulator_t<T>;
  A* kept = reinterpret_cast<A*>(shared_memory() + Kernel::kFeedBytes);  // [kWarps, kSteps * kTileRows, kWidth]
  const Walk& walk = args.walk;
  const SumsCut& cut = args.all.cut;
  const Tables<T>& numbers = args.all.tables;
  const Lane lane;
  const int warp = threadIdx.x / kWarp, row_warps = kWarps / cut.column_warps, row_warp = warp / cut.column_warps;
  int64_t block = blockIdx.x;
  const auto next_index = [&](int count) {
    const int index = static_cast<int>(block % count);
    block /= count;
    return index;
  };
  const int column_block = next_index(cut.column_blocks), group = next_index(numbers.groups);
  const int row_block = next_index(cut.row_blocks);
  const int64_t sample = block;
  const int block_row = row_block * row_warps * cut.rows_each;
  const int first_row = block_row + row_warp * cut.rows_each + lane.row;
  const int tile_column = (column_block * cut.column_warps + warp % cut.column_warps) * kTileColumns;
  const int first = tile_column + 8 * lane.column;
  const SampleTables<T> tables{numbers, sample, lane.column};
  const int64_t offset = sample * walk.rows * walk.columns;
  const auto mean_of = [&](int channel) {
    return load(args.mean + sample * numbers.channels + min(channel, numbers.channels - 1));
  };

  const int steps = tile_column < walk.columns ? cut.rows_each / kTileRows : 0;
  Feed<T, 2> feed(shared_memory(), walk);
  constexpr int kAhead = feed.kStages - 1;
  const auto fetch = [&](int step) {
    if (step < steps) {
      feed.fetch(step, 0, args.grad + offset, first_row + step * kTileRows, first);
      feed.fetch(step, 1, args.x + offset, first_row + step * kTileRows, first);
    }
    end_group();
  };
#pragma unroll
  for (int step = 0; step < kAhead; ++step) fetch(step);

  // What belongs to the columns: w of pixels; S, b and the mean of channels.
  Codes<T> column_w[kBlocks] = {}, column_scale[kBlocks] = {}, column_bias[kBlocks] = {};
  A column_mean[8] = {};
  if (steps > 0) {
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      const int column = tile_column + lane.operand_column(j);
      if constexpr (kChannelsLast) {
        column_scale[j] = transposed(tables.scale(group, column));
        column_bias[j] = transposed(tables.bias(group, column));
      } else {
        column_w[j] = transposed(tables.weights(group, column));
      }
    }
  }
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    if constexpr (kChannelsLast) column_mean[e] = mean_of(first + e);
  }

  A over_rows[kBlocks / 2][Kernel::kRowSums][4] = {};
  for (int step = 0; step * kTileRows < cut.rows_each; ++step) {
    const int row = first_row + step * kTileRows;
    A over_columns[Kernel::kColumnSums][4] = {};
    fetch(step + kAhead);
    if (step < steps && row - lane.row < walk.rows) {
      Codes<T> row_w[2], row_scale[2], row_bias[2];
      A row_mean[2];
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
      wait_for_copies<kAhead>();
      const Rows<T> grad = feed.take(step, 0), x = feed.take(step, 1);
#pragma unroll
      for (int pair = 0; pair < kBlocks / 2; ++pair) {
        const int j = 2 * pair;
        A rows[Kernel::kRowSums][4] = {}, columns[Kernel::kColumnSums][4] = {};
        const auto value = [&](const Rows<T>& from, int block, int e) {
          return value_of(from.row[block % 2], 4 * pair + 2 * (block / 2) + e);
        };
        Square<T, Kernel::kGradPieces> g;
#pragma unroll
        for (int block = 0; block < 4; ++block) g.set(block, value(grad, block, 0), value(grad, block, 1));
        const Codes<T>* with_columns = kChannelsLast ? column_bias : column_w;
        add_square(columns[0], g, with_columns[j], with_columns[j + 1]);
        const Codes<T>* with_rows = kChannelsLast ? row_w : row_bias;
        add_square(rows[0], g.turned(), with_rows[0], with_rows[1]);
        Square<T, Kernel::kPieces> moved;  // g (x - mean)
#pragma unroll
        for (int block = 0; block < 4; ++block) {
          A pair_values[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const A mean = kChannelsLast ? column_mean[4 * pair + 2 * (block / 2) + e] : row_mean[block % 2];
            pair_values[e] = value(grad, block, e) * (value(x, block, e) - mean);
          }
          moved.set(block, pair_values[0], pair_values[1]);
        }
        with_columns = kChannelsLast ? column_scale : column_w;
        add_square(columns[Kernel::kColumnSums - 1], moved, with_columns[j], with_columns[j + 1]);
        with_rows = kChannelsLast ? row_w : row_scale;
        add_square(rows[Kernel::kRowSums - 1], moved.turned(), with_rows[0], with_rows[1]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int which = 0; which < Kernel::kRowSums; ++which) over_rows[pair][which][i] += rows[which][i];
#pragma unroll
          for (int which = 0; which < Kernel::kColumnSums; ++which) over_columns[which][i] += columns[which][i];
        }
      }
    }
    A* mine = kept + warp * Kernel::kKept + (step % Kernel::kSteps * kTileRows + lane.row) * Kernel::kWidth;
#pragma unroll
    for (int which = 0; which < Kernel::kColumnSums; ++which) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        mine[i / 2 * 8 * Kernel::kWidth + which * kGroup + 2 * lane.column + i % 2] = over_columns[which][i];
      }
    }
    if ((step + 1) % Kernel::kSteps == 0 || (step + 1) * kTileRows >= cut.rows_each) {
      const int64_t part = (group * cut.column_blocks + column_block) * numbers.samples + sample;
      __syncthreads();
      hand_on<T, kChannelsLast>(args, kept, part * walk.rows, row_warps, block_row,
                                step / Kernel::kSteps * Kernel::kSteps);
      __syncthreads();
    }
  }

  const int slots = args.all.slots, parts = cut.row_blocks * row_warps;
  const int64_t part = (group * parts + row_block * row_warps + row_warp) * numbers.samples + sample;
  A* result = kChannelsLast ? args.all.channel_sums : args.all.pixel_sums;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int pair = 0; pair < kBlocks / 2; ++pair) {
      const int column = tile_column + lane.operand_column(2 * pair + i / 2), slot = 2 * lane.column + i % 2;
      if (column >= walk.columns || slot >= slots) continue;
#pragma unroll
      for (int which = 0; which < Kernel::kRowSums; ++which) {
        store(result + ((part * walk.columns + column) * Kernel::kRowSums + which) * slots + slot,
              over_rows[pair][which][i]);
      }
    }
  }
}

template <typename T>
const char* sums_of(const BackwardSums& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  const Shape& shape = call.shape;
  const BackwardTables<T> all = backward_tables_of<T>(shape, device, call.workspace);
  const char* error = make_tables(shape, call.group, all.tables, stream);
  if (error != nullptr) return error;
  const T* grad = static_cast<const T*>(call.grad);
  const T* x = static_cast<const T*>(call.x);
  const int64_t pixels = shape.h * shape.w, stride = shape.channels_last ? shape.c : pixels;
  const Walk walk{static_cast<int>(shape.channels_last ? pixels : shape.c), static_cast<int>(stride), 0, 0, 0,
                  is_wide(grad, stride) && is_wide(x, stride)};
  const int64_t blocks = shape.n * all.tables.groups * all.cut.column_blocks * all.cut.row_blocks;
  error = launch(shape.channels_last ? sums<T, true> : sums<T, false>, blocks,
                 SumsKernel<T, true>::kSharedBytes, stream, SumsArguments<T>{grad, x, static_cast<const A*>(call.group.mean), walk, all});
  return error != nullptr ? error : finish_sums(call, all, stream);
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
