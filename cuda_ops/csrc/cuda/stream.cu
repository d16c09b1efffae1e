// y     = keep x + sum_k w_k (S_k (x - mean) + b_k), S_k = scale_k r, r = rstd: x is read, y written
// dL/dx = (keep + sum_k w_k S_k) g + constant + slope (x - mean): g and x are read, dL/dx written, with
//   constant = (grad_mean - r sum_k scale_k grad_bias_k) / (H W),  slope = -r^2 sum_k scale_k grad_scale_k / (H W):
//   the instance norm's part is r (q - mean(q) - x_hat mean(q x_hat)) for q = g sum_k w_k scale_k.
//
// Columns are what lies together in memory: pixels of contiguous features, whose rows are channels; channels of
// channels_last ones, whose rows are pixels. A thread keeps the coefficients of 16 bytes of columns in registers and
// walks over rows, whose coefficients the block has put into shared memory. Some rows are loaded before the first is
// used.
#include <utility>

#include "backward.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct StreamArguments {
  using A = accumulator_t<T>;
  const T* grad;  // null in the forward pass
  const T* x;
  T* result;
  const A* scale;
  const A* bias;
  const A* mean;
  const A* rstd;
  const Norm<A>* norms;
  Weights<A> weights;
  int rows, columns;                 // of a sample
  int across, column_blocks;         // threads of a block along the columns; blocks
  int row_blocks, rows_each, entry;  // rows of a block, numbers of a row in shared memory
};

// Numbers of a row in shared memory. A channel: S_k and b_k in turn (S_k alone backward), mean, constant, slope; a
// pixel: w_k, keep.
__host__ __device__ constexpr int entry_of(int codes, bool channels_last, bool backward) {
  const int numbers = channels_last ? codes + 1 : backward ? codes + 3 : 2 * codes + 1;
  return (numbers + 3) / 4 * 4;
}

template <bool kChannelsLast, bool kBackward, typename T, typename A = accumulator_t<T>>
__device__ inline void stage_rows(const StreamArguments<T>& args, A* rows, int64_t sample, int first, int count) {
  const int codes = args.weights.codes;
  for (int i = threadIdx.x; i < count * (codes + 1); i += kThreads) {
    const int code = i / count, inner = i - code * count, row = first + inner;
    A* entry = rows + inner * args.entry;
    if constexpr (kChannelsLast) {
      entry[code] = load(args.weights.plane(sample, code) + row);
    } else {
      const int64_t plane = sample * args.rows + row, at = (sample * codes + code) * args.rows + row;
      if (code < codes) {
        entry[kBackward ? code : 2 * code] = load(args.scale + at) * load(args.rstd + plane);
        if constexpr (!kBackward) entry[2 * code + 1] = load(args.bias + at);
      } else if constexpr (kBackward) {
        const Norm<A> norm = load(args.norms + plane);
        entry[codes] = norm.mean;
        entry[codes + 1] = norm.constant;
        entry[codes + 2] = norm.slope;
      } else {
        entry[2 * codes] = load(args.mean + plane);
      }
    }
  }
}

// Columns of a thread: 16 bytes, or 8 where two coefficients for each code of each of eight channels would take too
// many registers.
template <typename T, int kCodes, bool kChannelsLast>
constexpr int kColumnsEach = Line<T>::kEach / (kChannelsLast && sizeof(T) == 2 && (kCodes == 0 || kCodes > 4) ? 2 : 1);

// kCodes: how many there are, or 0 for any number: their coefficients of the columns are then read for some rows at a
// time. kWide: features and numbers of channels may be read 16 bytes at a time.
template <typename T, int kCodes, bool kChannelsLast, bool kBackward, bool kWide>
__global__ void __launch_bounds__(kThreads) stream(const __grid_constant__ StreamArguments<T> args) {
  using A = accumulator_t<T>;
  constexpr int kColumns = kColumnsEach<T, kCodes, kChannelsLast>, kKept = kCodes > 0 ? kCodes : 1;
  constexpr int kAhead = kBackward || kChannelsLast || kCodes == 0 ? 4 : 8;  // rows that are loaded together
  constexpr int kTogether = kCodes > 0 ? 1 : kAhead;                         // and made together
  A* rows = reinterpret_cast<A*>(shared_memory());
  const int codes = kCodes > 0 ? kCodes : args.weights.codes;
  const int entry = kCodes > 0 ? entry_of(kCodes, kChannelsLast, kBackward) : args.entry;
  const int down = kThreads / args.across, row_block = narrow(blockIdx.x / args.column_blocks % args.row_blocks);
  const int64_t sample = blockIdx.x / args.column_blocks / args.row_blocks;
  const int column = (blockIdx.x % args.column_blocks * args.across + threadIdx.x % args.across) * kColumns;
  const int first = row_block * args.rows_each, count = min(args.rows_each, args.rows - first);
  const int present = args.columns - column;
  stage_rows<kChannelsLast, kBackward>(args, rows, sample, first, count);

  // Coefficients of the columns: w_k and keep of pixels; S_k, b_k and those of the norm of channels.
  A w_or_scale[kKept][kColumns], bias[kKept][kColumns], keep[kColumns];
  Norm<A> norm[kColumns];
  const auto load_code = [&](int code, A(&first_numbers)[kColumns], A(&second_numbers)[kColumns]) {
    if constexpr (kChannelsLast) {
      const int64_t at = (sample * codes + code) * args.columns + column;
      const auto scales = load_line<A, kColumns, kWide>(args.scale + at, present);
      const auto rstds = load_line<A, kColumns, kWide>(args.rstd + sample * args.columns + column, present);
      Line<A, kColumns> biases{};
      if constexpr (!kBackward) biases = load_line<A, kColumns, kWide>(args.bias + at, present);
#pragma unroll
      for (int e = 0; e < kColumns; ++e) {
        first_numbers[e] = scales[e] * rstds[e];
        second_numbers[e] = biases[e];
      }
    } else {
      const auto numbers = load_line<A, kColumns, true>(args.weights.plane(sample, code) + column, kColumns);
#pragma unroll
      for (int e = 0; e < kColumns; ++e) first_numbers[e] = numbers[e];
    }
  };
  if (present > 0) {
    if constexpr (kCodes > 0) {
#pragma unroll
      for (int code = 0; code < kCodes; ++code) load_code(code, w_or_scale[code], bias[code]);
    }
    if constexpr (kChannelsLast) {
#pragma unroll
      for (int e = 0; e < kColumns; ++e) {
        const int64_t plane = sample * args.columns + min(column + e, args.columns - 1);
        if constexpr (kBackward)
          norm[e] = load(args.norms + plane);
        else
          norm[e].mean = load(args.mean + plane);
      }
    } else {
      const auto numbers = load_line<A, kColumns, true>(args.weights.plane(sample, codes) + column, kColumns);
#pragma unroll
      for (int e = 0; e < kColumns; ++e) keep[e] = numbers[e];
    }
  }
  __syncthreads();
  if (present <= 0) return;

  const int64_t offset = (sample * args.rows + first) * args.columns + column;
  for (int top = threadIdx.x / args.across; top < count; top += down * kAhead) {
    Line<T, kColumns> x[kAhead], grad[kAhead];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int row = top + ahead * down;
      const int64_t at = offset + static_cast<int64_t>(row) * args.columns;
      x[ahead] = load_line<T, kColumns, kWide>(args.x + at, row < count ? present : 0);
      if constexpr (kBackward) grad[ahead] = load_line<T, kColumns, kWide>(args.grad + at, row < count ? present : 0);
    }
#pragma unroll
    for (int start = 0; start < kAhead; start += kTogether) {
      A gain[kTogether][kColumns] = {}, shift[kTogether][kColumns] = {};
#pragma unroll(kCodes > 0 ? kCodes : 2)  // any number: more at a time spill
      for (int code = 0; code < codes; ++code) {
        if constexpr (kCodes == 0) load_code(code, w_or_scale[0], bias[0]);
        constexpr bool kPairs = !kChannelsLast && !kBackward;
        const int kept = kCodes > 0 ? code : 0;
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          const A* numbers = rows + min(top + (start + i) * down, count - 1) * entry;
          const A of_row = numbers[kPairs ? 2 * code : code], bias_of_row = kPairs ? numbers[2 * code + 1] : A(0);
#pragma unroll
          for (int e = 0; e < kColumns; ++e) {
            gain[i][e] += w_or_scale[kept][e] * of_row;
            if constexpr (!kBackward) {
              shift[i][e] += kChannelsLast ? bias[kept][e] * of_row : w_or_scale[kept][e] * bias_of_row;
            }
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int ahead = start + i, row = top + ahead * down;
        if (row >= count) break;
        const A* numbers = rows + row * entry;
        A results[kColumns];
#pragma unroll
        for (int e = 0; e < kColumns; ++e) {
          const A value = x[ahead][e], keep_here = kChannelsLast ? numbers[codes] : keep[e];
          if constexpr (kBackward) {
            const Norm<A> here =
                kChannelsLast ? norm[e] : Norm<A>{numbers[codes], numbers[codes + 1], numbers[codes + 2], A(0)};
            results[e] = (keep_here + gain[i][e]) * grad[ahead][e] + (here.constant + here.slope * (value - here.mean));
          } else {
            const A mean = kChannelsLast ? norm[e].mean : numbers[2 * codes];
            results[e] = keep_here * value + (gain[i][e] * (value - mean) + shift[i][e]);
          }
        }
        Line<T, kColumns> line;
        line.set(results);
        store_line<kWide>(args.result + offset + static_cast<int64_t>(row) * args.columns, line, present);
      }
    }
  }
}

template <typename T>
struct StreamKernel {
  void (*kernel)(StreamArguments<T>);
  int columns_each;
};
template <typename T, bool kChannelsLast, bool kBackward, int... kCodes>
StreamKernel<T> kernel_for(int codes, bool wide, std::integer_sequence<int, kCodes...>) {
  constexpr int kColumns = kColumnsEach<T, 0, kChannelsLast>;
  if (!wide) return {stream<T, 0, kChannelsLast, kBackward, false>, kColumns};
  StreamKernel<T> found{stream<T, 0, kChannelsLast, kBackward, true>, kColumns};
  ((codes == kCodes
        ? found = {stream<T, kCodes, kChannelsLast, kBackward, true>, kColumnsEach<T, kCodes, kChannelsLast>}
        : found),
   ...);
  return found;
}

template <bool kBackward, typename T>
const char* launch_stream(const Shape& shape, const Device& device, void* cuda_stream, StreamArguments<T> args) {
  using A = accumulator_t<T>;
  constexpr int kMostShared = 48 * 1024;
  const int64_t pixels = shape.h * shape.w;
  args.rows = narrow(shape.channels_last ? pixels : shape.c);
  args.columns = narrow(shape.channels_last ? shape.c : pixels);
  const auto fits = [&](const auto* start) { return is_wide(start, args.columns); };
  bool wide = fits(args.x) && fits(args.result) && fits(args.grad);
  if (shape.channels_last) wide = wide && fits(args.scale) && fits(args.bias) && fits(args.rstd);
  using Codes =
      std::conditional_t<sizeof(T) == 8, std::integer_sequence<int>, std::integer_sequence<int, 1, 2, 3, 4, 5, 6, 8>>;
  const StreamKernel<T> chosen = shape.channels_last
                                     ? kernel_for<T, true, kBackward>(args.weights.codes, wide, Codes{})
                                     : kernel_for<T, false, kBackward>(args.weights.codes, wide, Codes{});
  const int64_t packs = ceil_divide(args.columns, chosen.columns_each);
  args.across = narrow(std::min<int64_t>(std::max<int64_t>(power_of_two(packs), 8), kThreads));
  args.column_blocks = narrow(ceil_divide(packs, args.across));
  args.entry = entry_of(narrow(shape.k), shape.channels_last, kBackward);
  // Thirty-two rows a thread, or twice as many where it begins with more coefficients, or fewer where that would leave
  // multiprocessors without work.
  const int down = kThreads / args.across;
  const int64_t wanted = ceil_divide(8 * device.multiprocessors, shape.n * args.column_blocks);
  const int64_t each = std::max<int64_t>(ceil_divide(ceil_divide(args.rows, wanted), down), 4);
  const int64_t most = kMostShared / static_cast<int64_t>(args.entry * sizeof(A));
  if (most < 1) return "too many codes";
  args.rows_each = narrow(std::min(std::min<int64_t>(each, shape.channels_last ? 64 : 32) * down, most));
  args.row_blocks = narrow(ceil_divide(args.rows, args.rows_each));
  return launch(chosen.kernel, shape.n * args.column_blocks * args.row_blocks, args.rows_each * args.entry * sizeof(A),
                cuda_stream, args);
}

template <typename T>
const char* apply_of(const Apply& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  const Group& group = call.group;
  Scratch scratch(call.workspace);
  const Weights<A> weights = weights_of<A>(call.shape, scratch, false);
  const char* error = make_weights(group, weights, stream);
  if (error != nullptr) return error;
  return launch_stream<false, T>(
      call.shape, device, stream,
      {nullptr, numbers<T>(call.x), results<T>(call.y), numbers<A>(group.scale), numbers<A>(group.bias),
       numbers<A>(group.mean), numbers<A>(group.rstd), nullptr, weights});
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
  int channels, codes, blocks;  // blocks of a sample
  A pixels;
};

// A thread takes a plane.
template <typename A>
__global__ void __launch_bounds__(kThreads) find_norms(const __grid_constant__ NormArguments<A> args) {
  const Work work(args.blocks);
  if (work.index >= args.channels) return;
  const int64_t plane = static_cast<int64_t>(work.sample) * args.channels + work.index;
  const int64_t first = static_cast<int64_t>(work.sample) * args.codes * args.channels + work.index;
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
  const Group& group = call.group;
  const BackwardTables<T> all = backward_tables_of<T>(shape, device, call.workspace);
  const NormArguments<A> norms{numbers<A>(group.scale),
                               numbers<A>(call.grad_scale),
                               numbers<A>(call.grad_bias),
                               numbers<A>(group.mean),
                               numbers<A>(group.rstd),
                               numbers<A>(call.grad_mean),
                               all.norms,
                               narrow(shape.c),
                               narrow(shape.k),
                               blocks_for(shape.c),
                               static_cast<A>(shape.h * shape.w)};
  const char* error = launch(find_norms<A>, shape.n * norms.blocks, 0, stream, norms);
  if (error != nullptr) return error;
  return launch_stream<true, T>(shape, device, stream,
                                {numbers<T>(call.grad), numbers<T>(call.x), results<T>(call.grad_x), norms.scale,
                                 nullptr, nullptr, norms.rstd, all.norms, all.weights});
}

size_t workspace_of(const Shape& shape) {
  Scratch scratch(nullptr);
  if (shape.scalar == Scalar::f64)
    weights_of<double>(shape, scratch, false);
  else
    weights_of<float>(shape, scratch, false);
  return scratch.bytes();
}

}  // namespace

size_t apply_workspace(const Shape& shape, const Device&) { return workspace_of(shape); }

const char* launch_apply(const Apply& call, const Device& device, void* stream) {
  return SC_LAYERS_DISPATCH(call.shape.scalar, apply_of, call, device, stream);
}

const char* launch_backward_input(const BackwardInput& call, const Device& device, void* stream) {
  return SC_LAYERS_DISPATCH(call.shape.scalar, input_of, call, device, stream);
}

}  // namespace sc_layers
