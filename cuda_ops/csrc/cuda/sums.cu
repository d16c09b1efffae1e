// With g = dL/dy:  sum_hw g w_k  and  sum_hw g x_hat w_k  of every channel,
//                  sum_c g (scale_k x_hat + b_k)  and  sum_c g x  of every pixel. g and x are read once.
//
// Both are products of features with coefficients, one contracted over columns and one over rows (see stream.cu), by
// tensor cores. Of a tile of 16 rows and 32 columns, lane 4 i + t holds rows i and i + 8, columns 8 t to 8 t + 7: pairs
// of columns are operands of four 8x8 blocks as they lie; for sums over rows the blocks are transposed within
// registers. Half precision features go in as they are, g x_hat rounded to their type; float32 in three bfloat16
// pieces, which are as exact as float32. Tensor cores cut off what they add up, so every step starts from 0 and its
// result is added by ordinary arithmetic. All orders are fixed.
#include "backward.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct SumsArguments {
  using A = accumulator_t<T>;
  const T* grad;
  const T* x;
  const A* scale;
  const A* bias;
  const A* mean;
  const A* rstd;
  int rows, columns;
  BackwardTables<T> all;
};

// A pair of numbers in pieces.
template <typename T, int kPieces>
__device__ inline void split(float low, float high, unsigned (&pieces)[kPieces]) {
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    if constexpr (std::is_same_v<T, Half>) {
      pieces[p] = pack_half(low, high);
      low -= unpack_half(pieces[p], 0);
      high -= unpack_half(pieces[p], 1);
    } else {
      pieces[p] = pack_bfloat16(low, high);
      low -= float_of(pieces[p] << 16);
      high -= float_of(pieces[p] & 0xffff0000u);
    }
  }
}
template <typename T>
__device__ inline void split(double low, double high, Doubles (&pieces)[1]) {
  pieces[0] = {low, high};
}

__host__ __device__ inline int blocks_of_styles(int pairs) { return narrow(ceil_divide(kGroup * pairs, kThreads)); }

// Scale and bias of all codes in pieces; a thread takes one code of two channels. x = x_hat / rstd + mean, so these are
// scale and bias of `keep`.
template <typename T>
__global__ void __launch_bounds__(kThreads) style_pieces(const __grid_constant__ SumsArguments<T> args) {
  using A = accumulator_t<T>;
  const BackwardTables<T>& all = args.all;
  const int pairs = all.channel_pairs, channels = all.weights.channels, codes = all.weights.codes;
  const Work work(blocks_of_styles(pairs));
  if (work.index >= kGroup * pairs) return;
  const int samples = narrow(all.weights.samples), group = work.sample / samples, row = work.index / pairs;
  const int64_t sample = work.sample - group * samples;
  const int first = 2 * (work.index - row * pairs), code = group * kGroup + row;
  A scale[2] = {}, bias[2] = {};
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int channel = first + e;
    const int64_t at = (sample * codes + code) * channels + channel;
    if (channel < channels && code < codes) {
      scale[e] = load(args.scale + at);
      bias[e] = load(args.bias + at);
    } else if (channel < channels && code == codes) {
      scale[e] = 1 / load(args.rstd + sample * channels + channel);
      bias[e] = load(args.mean + sample * channels + channel);
    }
  }
  Style<T> style{};
  split<T>(scale[0], scale[1], style.scale);
  split<T>(bias[0], bias[1], style.bias);
  store(all.styles + static_cast<int64_t>(work.sample) * kGroup * pairs + work.index, style);
}

// Four 8x8 blocks of features in pieces: [0], [1] the upper and lower rows on the left, [2], [3] on the right.
template <typename T>
struct Square {
  static constexpr int kPieces = sizeof(T) == 2 ? 1 : Format<T>::kPieces;
  using Word = typename Format<T>::Word;
  Word piece[kPieces][4];

  __device__ void set(int block, accumulator_t<T> low, accumulator_t<T> high) {
    Word pieces[kPieces];
    split<T>(low, high, pieces);
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

// sum += square * (coefficients of its upper and lower, or left and right, half), but for pieces too small to count.
template <typename T, int kTable>
__device__ inline void add_square(accumulator_t<T> (&sum)[4], const Square<T>& square,
                                  const typename Format<T>::Word (&first)[kTable],
                                  const typename Format<T>::Word (&second)[kTable]) {
#pragma unroll
  for (int below = kTable - 1; below >= 0; --below) {
#pragma unroll
    for (int p = 0; p < Square<T>::kPieces; ++p) {
      if (p <= below) multiply<T>(sum, square.piece[p], {first[below - p], second[below - p]});
    }
  }
}

template <typename T, bool kChannelsLast>
struct SumsKernel {
  static constexpr int kOwned = owned_tiles<T>(kChannelsLast);
  static constexpr int kRowSums = kChannelsLast ? 2 : 1;     // sums over rows a code: channels have two
  static constexpr int kColumnSums = kChannelsLast ? 1 : 2;  // and over columns
  static constexpr int kWidth = kGroup * kColumnSums;
  static constexpr int kSteps = 256 / kWidth / static_cast<int>(sizeof(accumulator_t<T>));  // kept in shared memory
  static constexpr int kKept = kSteps * kTileRows * kWidth;                                 // numbers of a warp
};
constexpr int kSharedBytes = kWarps * 256 * kTileRows;

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
    if (in_part >= cut.rows_each || row >= args.rows || slot >= slots) continue;
    accumulator_t<T> sum = 0;
    for (int warp = 0; warp < cut.column_warps; ++warp) {
      sum += kept[(row_warp * cut.column_warps + warp) * Kernel::kKept + inner];
    }
    const int which = inner % Kernel::kWidth / kGroup;
    store(sums + ((first + row) * Kernel::kColumnSums + which) * slots + slot, sum);
  }
}

// Where a warp works. Found anew where it is needed: kept over the loop it would take registers that the loop needs.
struct SumsPlace {
  int column_block, group, row_block, sample;
  int row_warps, row_warp, column;  // warps below each other, which of them, its first column

  __device__ SumsPlace(const SumsCut& cut, int groups, int owned_tiles) {
    unsigned block = blockIdx.x;
    forget_uses(block);
    const auto next_index = [&](int count) {
      const unsigned index = block % static_cast<unsigned>(count);
      block /= static_cast<unsigned>(count);
      return narrow(index);
    };
    column_block = next_index(cut.column_blocks);
    group = next_index(groups);
    row_block = next_index(cut.row_blocks);
    sample = narrow(block);
    const int warp = threadIdx.x / kWarp;
    row_warps = kWarps / cut.column_warps;
    row_warp = warp / cut.column_warps;
    column = (column_block * cut.column_warps + warp % cut.column_warps) * owned_tiles * kTileColumns;
  }
};

// Blocks of a multiprocessor at a time: registers hold so many.
template <typename T, bool kWide>
constexpr int kBlocksEach = kWide && sizeof(T) < 8 ? 2 : 1;

// Whether features are loaded a step ahead.
template <typename T, bool kChannelsLast>
constexpr bool kFetchAhead = kChannelsLast && sizeof(T) == 2;

template <typename T, bool kChannelsLast, bool kWide>
__global__ void __launch_bounds__(kThreads, kBlocksEach<T, kWide>) sums(const __grid_constant__ SumsArguments<T> args) {
  using A = accumulator_t<T>;
  using Kernel = SumsKernel<T, kChannelsLast>;
  using Word = typename Format<T>::Word;
  constexpr int kOwned = Kernel::kOwned, kPieces = Format<T>::kPieces, kParts = sizeof(T) == 4 ? 2 : 1;
  A* kept = reinterpret_cast<A*>(shared_memory());  // [kWarps, kSteps * kTileRows, kWidth]
  const BackwardTables<T>& all = args.all;
  const SumsCut& cut = all.cut;
  const int samples = narrow(all.weights.samples);
  const int warp = threadIdx.x / kWarp, lane_row = threadIdx.x % kWarp / 4, lane_column = threadIdx.x % 4;
  const SumsPlace place(cut, all.groups, kOwned);
  const int row_warps = place.row_warps, first = place.column, sample = place.sample, group = place.group;
  const int block_row = place.row_block * row_warps * cut.rows_each,
            part_row = block_row + place.row_warp * cut.rows_each;
  const int64_t offset = static_cast<int64_t>(sample) * args.rows * args.columns;
  const int code = group * kGroup + lane_row;  // whose coefficients this lane holds
  const Style<T>* styles = all.styles +
                           static_cast<int64_t>((group * samples + sample) * kGroup + lane_row) * all.channel_pairs +
                           lane_column;
  const bool has_weights = code < all.weights.codes;
  const A* weights = all.weights.plane(sample, has_weights ? code : 0);
  const auto channel_of = [&](const A* numbers, int channel) {
    return load(numbers + static_cast<int64_t>(sample) * all.weights.channels + min(channel, all.weights.channels - 1));
  };

  // What belongs to the columns: w of pixels; scale, bias, mean and rstd of channels.
  Word column_w[kOwned][kBlocks][kPieces] = {};
  Style<T> column_style[kBlocks] = {};
#pragma unroll
  for (int tile = 0; tile < kOwned; ++tile) {
    const int column = first + tile * kTileColumns;
    if (column >= args.columns) continue;
    if constexpr (kChannelsLast) {
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) column_style[j] = load(styles + column / 2 + 3 * lane_column + j);
    } else if (has_weights) {
      const Line<A, 8> numbers = load_line<A, 8, true>(weights + column + 8 * lane_column, 8);
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) split<T>(numbers[2 * j], numbers[2 * j + 1], column_w[tile][j]);
    }
  }

  // float32 is loaded and used in two parts: the features of a step, their pieces and all coefficients at once take
  // more registers than there are.
  using Part = Line<T, 8 / kParts>;
  Part next_x[kOwned][2], next_grad[kOwned][2];
  Line<A, 8 / kParts> column_mean{}, column_rstd{};
  const auto fetch_columns = [&](unsigned part) {
    forget_uses(part);  // addresses would take registers from one part to the next
    const int column = first + 8 * lane_column + 8 / kParts * narrow(part);
    const int64_t at = static_cast<int64_t>(sample) * args.columns + column;
    column_mean = load_line<A, 8 / kParts, kWide>(args.mean + at, args.columns - column);
    column_rstd = load_line<A, 8 / kParts, kWide>(args.rstd + at, args.columns - column);
  };
  if constexpr (kChannelsLast && kParts == 1) fetch_columns(0);
  const auto fetch = [&](int step, int part) {
#pragma unroll
    for (int tile = 0; tile < kOwned; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = part_row + step * kTileRows + lane_row + 8 * half;
        const int column = first + tile * kTileColumns + 8 * lane_column + 8 / kParts * part;
        const int64_t at = offset + static_cast<int64_t>(row) * args.columns + column;
        const int count = row < args.rows ? args.columns - column : 0;
        next_grad[tile][half] = load_line<T, 8 / kParts, kWide>(args.grad + at, count);
        next_x[tile][half] = load_line<T, 8 / kParts, kWide>(args.x + at, count);
      }
    }
  };
  if constexpr (kFetchAhead<T, kChannelsLast>) fetch(0, 0);
  A over_rows[kOwned][kBlocks / 2][Kernel::kRowSums][4] = {};
  for (int step = 0; step * kTileRows < cut.rows_each; ++step) {
    const int step_row = part_row + step * kTileRows;
    A over_columns[Kernel::kColumnSums][4] = {};
    if (step_row < args.rows && first < args.columns) {
      Word row_w[2][kPieces] = {};
      Style<T> row_style[2];
      A row_mean[2], row_rstd[2];
      const auto load_rows = [&] {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if constexpr (kChannelsLast) {
            const A* pair = all.weights.plane(sample, has_weights ? code : 0) + step_row + 8 * half + 2 * lane_column;
            if (has_weights) split<T>(load(pair), load(pair + 1), row_w[half]);
          } else {
            row_style[half] = load(styles + step_row / 2 + 4 * half);
            row_mean[half] = channel_of(args.mean, step_row + lane_row + 8 * half);
            row_rstd[half] = channel_of(args.rstd, step_row + lane_row + 8 * half);
          }
        }
      };
      if (kParts > 1) load_rows();  // before the features: after them they take more registers
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        if constexpr (kChannelsLast && kParts > 1) fetch_columns(part);
        if constexpr (!kFetchAhead<T, kChannelsLast>) fetch(step, part);
        Part x[kOwned][2], grad[kOwned][2];
#pragma unroll
        for (int tile = 0; tile < kOwned; ++tile) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            x[tile][half] = next_x[tile][half];
            grad[tile][half] = next_grad[tile][half];
          }
        }
        if (kFetchAhead<T, kChannelsLast> && (step + 1) * kTileRows < cut.rows_each) fetch(step + 1, 0);
        if (kParts == 1) load_rows();
#pragma unroll
        for (int tile = 0; tile < kOwned; ++tile) {
#pragma unroll
          for (int pair = kBlocks / 2 / kParts * part; pair < kBlocks / 2 / kParts * (part + 1); ++pair) {
            A rows[Kernel::kRowSums][4] = {}, columns[Kernel::kColumnSums][4] = {};
            Square<T> g, normed;  // dL/dy; dL/dy x_hat
#pragma unroll
            for (int block = 0; block < 4; ++block) {
              const int half = block % 2, e = 4 * pair + 2 * (block / 2);
              const Part& of_grad = grad[tile][half];
              const Part& of_x = x[tile][half];
              const int within = e % (8 / kParts);
              if constexpr (sizeof(T) == 2)
                g.piece[0][block] = of_grad.word[within / 2];
              else
                g.set(block, of_grad[within], of_grad[within + 1]);
              A values[2];
#pragma unroll
              for (int i = 0; i < 2; ++i) {
                const A mean = kChannelsLast ? column_mean[within + i] : row_mean[half];
                const A rstd = kChannelsLast ? column_rstd[within + i] : row_rstd[half];
                values[i] = of_grad[within + i] * ((of_x[within + i] - mean) * rstd);
              }
              normed.set(block, values[0], values[1]);
            }
            const int j = 2 * pair;
            if constexpr (kChannelsLast) {
              add_square<T>(columns[0], g, column_style[j].bias, column_style[j + 1].bias);
              add_square<T>(columns[0], normed, column_style[j].scale, column_style[j + 1].scale);
              add_square<T>(rows[0], g.turned(), row_w[0], row_w[1]);
              add_square<T>(rows[1], normed.turned(), row_w[0], row_w[1]);
            } else {
              add_square<T>(columns[0], g, column_w[tile][j], column_w[tile][j + 1]);
              add_square<T>(columns[1], normed, column_w[tile][j], column_w[tile][j + 1]);
              add_square<T>(rows[0], g.turned(), row_style[0].bias, row_style[1].bias);
              add_square<T>(rows[0], normed.turned(), row_style[0].scale, row_style[1].scale);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
              for (int which = 0; which < Kernel::kRowSums; ++which) over_rows[tile][pair][which][i] += rows[which][i];
#pragma unroll
              for (int which = 0; which < Kernel::kColumnSums; ++which) over_columns[which][i] += columns[which][i];
            }
          }
        }
      }
    }
    A* mine = kept + warp * Kernel::kKept + (step % Kernel::kSteps * kTileRows + lane_row) * Kernel::kWidth;
#pragma unroll
    for (int which = 0; which < Kernel::kColumnSums; ++which) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        mine[i / 2 * 8 * Kernel::kWidth + which * kGroup + 2 * lane_column + i % 2] = over_columns[which][i];
      }
    }
    if ((step + 1) % Kernel::kSteps == 0 || (step + 1) * kTileRows >= cut.rows_each) {
      const int64_t part = (group * cut.column_blocks + place.column_block) * samples + sample;
      __syncthreads();
      hand_on<T, kChannelsLast>(args, kept, part * args.rows, row_warps, block_row,
                                step / Kernel::kSteps * Kernel::kSteps);
      __syncthreads();
    }
  }

  const SumsPlace end(cut, all.groups, kOwned);
  const int slots = all.slots, parts = cut.row_blocks * end.row_warps;
  const int64_t part =
      static_cast<int64_t>(end.group * parts + end.row_block * end.row_warps + end.row_warp) * samples + end.sample;
  A* result = kChannelsLast ? all.channel_sums : all.pixel_sums;
#pragma unroll
  for (int tile = 0; tile < kOwned; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int pair = 0; pair < kBlocks / 2; ++pair) {
        // Rows of a turned block are its columns: pairs of columns lie 8 apart.
        const int within = 8 * (lane_row / 2) + 2 * (2 * pair + i / 2) + lane_row % 2;
        const int column = end.column + tile * kTileColumns + within, slot = 2 * lane_column + i % 2;
        if (column >= args.columns || slot >= slots) continue;
#pragma unroll
        for (int which = 0; which < Kernel::kRowSums; ++which) {
          store(result + ((part * args.columns + column) * Kernel::kRowSums + which) * slots + slot,
                over_rows[tile][pair][which][i]);
        }
      }
    }
  }
}

template <typename T>
const char* sums_of(const BackwardSums& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  const Shape& shape = call.shape;
  const BackwardTables<T> all = backward_tables_of<T>(shape, device, call.workspace);
  const char* error = make_weights(call.group, all.weights, stream);
  if (error != nullptr) return error;
  const T* grad = numbers<T>(call.grad);
  const T* x = numbers<T>(call.x);
  const int64_t pixels = shape.h * shape.w, columns = shape.channels_last ? shape.c : pixels;
  const SumsArguments<T> args{grad,
                              x,
                              numbers<A>(call.group.scale),
                              numbers<A>(call.group.bias),
                              numbers<A>(call.group.mean),
                              numbers<A>(call.group.rstd),
                              narrow(shape.channels_last ? pixels : shape.c),
                              narrow(columns),
                              all};
  error = launch(style_pieces<T>, all.groups * shape.n * blocks_of_styles(all.channel_pairs), 0, stream, args);
  if (error != nullptr) return error;
  const int64_t blocks = shape.n * all.groups * all.cut.column_blocks * all.cut.row_blocks;
  bool wide = is_wide(grad, columns) && is_wide(x, columns);
  if (shape.channels_last) wide = wide && is_wide(args.mean, columns) && is_wide(args.rstd, columns);
  const auto kernel = shape.channels_last ? (wide ? sums<T, true, true> : sums<T, true, false>)
                                          : (wide ? sums<T, false, true> : sums<T, false, false>);
  error = launch(kernel, blocks, kSharedBytes, stream, args);
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
