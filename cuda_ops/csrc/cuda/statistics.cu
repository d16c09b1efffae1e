// mean = sum x / (H W), rstd = 1 / sqrt(sum (x - mean)^2 / (H W) + eps) of every plane; x is read once.
//
// What a thread reads stays in its registers, so deviations are taken from a mean that is known by then. That mean is
// corrected by the mean deviation from it: of a constant plane it is that constant exactly, and x - mean exactly 0.
// Planes too large for a block are cut; the pieces' means and sums of squares are joined by Chan's formula.
#include "device.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct StatisticsArguments {
  using A = accumulator_t<T>;
  const T* x;
  A* mean;
  A* rstd;
  A* pieces;  // [cuts, n c, 2] means and sums of squared deviations; null if a plane is one piece
  A eps;
  int64_t samples, planes;
  int channels, pixels;
  int cuts, piece;  // pieces of a plane, and the pixels of each but the last
  int team;         // contiguous: lanes that share a piece; channels_last: threads along the channels
};

template <typename T>
constexpr int kHeld = 128 / sizeof(Line<T, 8>);  // groups of eight in a thread's registers

template <typename A>
struct Moments {
  A mean, squares;
};

template <typename T, typename A = accumulator_t<T>>
__device__ inline void finish(const StatisticsArguments<T>& args, int64_t plane, int cut, const Moments<A>& found) {
  if (args.pieces == nullptr) {
    store(args.mean + plane, found.mean);
    store(args.rstd + plane, 1 / std::sqrt(found.squares / args.pixels + args.eps));
  } else {
    A* piece = args.pieces + 2 * (cut * args.planes + plane);
    store(piece, found.mean);
    store(piece + 1, found.squares);
  }
}

// A team of lanes or warps takes a piece of a contiguous plane, a lane up to kLines times eight pixels of it. kFull:
// every lane has all of them.
template <typename T, int kLines, bool kFull, bool kWide>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 3)
    contiguous_statistics(const __grid_constant__ StatisticsArguments<T> args) {
  using A = accumulator_t<T>;
  A* buffer = reinterpret_cast<A*>(shared_memory());  // [3, kWarps]
  const int teams = kThreads / args.team, lane = threadIdx.x % args.team;
  const unsigned unit = blockIdx.x * teams + threadIdx.x / args.team, cuts = args.cuts;
  const bool exists = unit < args.planes * cuts;  // all threads must reach the shuffles
  const int64_t plane = exists ? unit / cuts : 0;
  const int cut = narrow(unit % cuts);
  const int start = cut * args.piece, count = exists || kFull ? min(args.piece, args.pixels - start) : 0;
  const T* x = args.x + plane * args.pixels + start;
  Line<T, 8> held[kLines];
  A total[1] = {}, moments[2] = {};
#pragma unroll
  for (int i = 0; i < kLines; ++i) {
    const int first = (i * args.team + lane) * 8;
    held[i] = load_line<T, 8, kWide>(x + first, kFull ? 8 : count - first);
  }
#pragma unroll
  for (int i = 0; i < kLines; ++i) {
#pragma unroll
    for (int e = 0; e < 8; ++e) total[0] += held[i][e];
  }
  team_sums(total, args.team, buffer);
  const A guess = total[0] / count;
#pragma unroll
  for (int i = 0; i < kLines; ++i) {
#pragma unroll
    for (unsigned& word : held[i].word) forget_uses(word);  // else all of them stay as floats, twice as many registers
    const int left = kFull ? 8 : count - (i * args.team + lane) * 8;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const A d = e < left ? held[i][e] - guess : A(0);
      moments[0] += d;
      moments[1] += d * d;
    }
  }
  team_sums(moments, args.team, buffer + kWarps);
  const A deviation = moments[0] / count, squares = moments[1] - count * deviation * deviation;
  if (exists && lane == 0) finish<T>(args, plane, cut, {guess + deviation, squares > 0 ? squares : A(0)});
}

// The moments of `first` pixels and `second` others together.
template <typename A>
__device__ inline void join(Moments<A>& all, A first, const Moments<A>& other, A second) {
  const A delta = other.mean - all.mean, part = second / (first + second);
  all.mean += delta * part;
  all.squares += other.squares + delta * delta * first * part;
}

// A thread takes eight channels of some pixels, walking by kHeld groups at a time; the block joins its threads'
// moments.
template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 1 : 2)
    channels_last_statistics(const __grid_constant__ StatisticsArguments<T> args) {
  using A = accumulator_t<T>;
  Moments<A>* shared = reinterpret_cast<Moments<A>*>(shared_memory());  // [rows, team, 8]
  const int rows = kThreads / args.team, row = threadIdx.x / args.team, column = threadIdx.x % args.team;
  const int blocks = narrow(ceil_divide(args.channels, 8 * args.team));
  const unsigned unit = blockIdx.x / static_cast<unsigned>(blocks), cuts = args.cuts;
  const int block_channel = narrow(blockIdx.x % static_cast<unsigned>(blocks)) * 8 * args.team;
  const int cut = narrow(unit % cuts);
  const int64_t sample = unit / cuts;
  const int start = cut * args.piece, end = min(start + args.piece, args.pixels);
  const int channel = block_channel + column * 8, present = args.channels - channel;
  const T* x = args.x + sample * args.pixels * args.channels + channel;
  Moments<A> all[8] = {};
  int seen = 0;
  for (int first = start + row; first < end; first += rows * kHeld<T>) {
    Line<T, 8> held[kHeld<T>];
    const int count = min(kHeld<T>, narrow(ceil_divide(end - first, rows)));
#pragma unroll
    for (int i = 0; i < kHeld<T>; ++i) {
      const int64_t pixel = first + i * rows;
      held[i] = load_line<T, 8, kWide>(x + pixel * args.channels, i < count ? present : 0);
    }
    const A share = A(1) / count, part = A(count) / (seen + count);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const A guess = held[0][e];
      A deviation = 0, squares = 0;
#pragma unroll
      for (int i = 1; i < kHeld<T>; ++i) {
        if (i < count) deviation += held[i][e] - guess;
      }
      const A mean = guess + deviation * share;
#pragma unroll
      for (int i = 0; i < kHeld<T>; ++i) {
        const A d = held[i][e] - mean;
        if (i < count) squares += d * d;
      }
      const A delta = mean - all[e].mean;
      all[e].mean += delta * part;
      all[e].squares += squares + delta * delta * (seen * part);
    }
    seen += count;
  }
#pragma unroll
  for (int e = 0; e < 8; ++e) shared[threadIdx.x * 8 + e] = all[e];
  __syncthreads();
  for (int c = threadIdx.x; c < args.team * 8 && block_channel + c < args.channels; c += kThreads) {
    Moments<A> found = shared[c];
    A count = static_cast<A>(ceil_divide(end - start, rows));
    for (int r = 1; r < rows && start + r < end; ++r) {
      const A others = static_cast<A>(ceil_divide(end - start - r, rows));
      join(found, count, shared[r * args.team * 8 + c], others);
      count += others;
    }
    finish<T>(args, sample * args.channels + block_channel + c, cut, found);
  }
}

// Joins the pieces of planes, one a lane; a warp takes some of their pieces.
template <typename T>
__global__ void __launch_bounds__(kThreads) join_pieces(const __grid_constant__ StatisticsArguments<T> args) {
  using A = accumulator_t<T>;
  Moments<A>* shared = reinterpret_cast<Moments<A>*>(shared_memory());  // [kWarps, kWarp]
  const int warp = threadIdx.x / kWarp;
  const int64_t plane = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x % kWarp;
  const int each = narrow(ceil_divide(args.cuts, kWarps));
  const auto pixels_before = [&](int cut) { return A(min(min(cut, args.cuts) * args.piece, args.pixels)); };
  Moments<A> all = {};
  for (int cut = warp * each; cut < min((warp + 1) * each, args.cuts); ++cut) {
    if (plane >= args.planes) continue;
    const A* piece = args.pieces + 2 * (cut * args.planes + plane);
    const A before = pixels_before(cut) - pixels_before(warp * each);
    join(all, before, {load(piece), load(piece + 1)}, pixels_before(cut + 1) - pixels_before(cut));
  }
  shared[threadIdx.x] = all;
  __syncthreads();
  if (warp != 0 || plane >= args.planes) return;
  for (int other = 1; other < kWarps && other * each < args.cuts; ++other) {
    const A before = pixels_before(other * each);
    join(all, before, shared[other * kWarp + threadIdx.x], pixels_before((other + 1) * each) - before);
  }
  store(args.mean + plane, all.mean);
  store(args.rstd + plane, 1 / std::sqrt(all.squares / args.pixels + args.eps));
}

struct Cuts {
  int cuts, piece, team;
  int64_t blocks;
};

template <typename T>
Cuts cuts_of(const Shape& shape, const Device& device) {
  const int64_t pixels = shape.h * shape.w, planes = shape.n * shape.c;
  if (shape.channels_last) {
    // Blocks for several rounds of all multiprocessors, but no thread with less than what it can hold.
    const int64_t team = std::min<int64_t>(power_of_two(ceil_divide(shape.c, 8)), kWarp);
    const int64_t across = shape.n * ceil_divide(shape.c, 8 * team), least = kThreads / team * kHeld<T>;
    const int64_t wanted = std::min(ceil_divide(16 * device.multiprocessors, across), ceil_divide(pixels, least));
    const int64_t piece = ceil_divide(ceil_divide(pixels, wanted), least) * least, cuts = ceil_divide(pixels, piece);
    return {narrow(cuts), narrow(piece), narrow(team), across * cuts};
  }
  const int64_t most = kThreads * kHeld<T> * 8;
  const int64_t piece = ceil_divide(ceil_divide(pixels, ceil_divide(pixels, most)), 8) * 8;
  const int64_t cuts = ceil_divide(pixels, piece);
  // Lanes with as much to load at once as they can hold, but eight lanes at least: they read 128 bytes together.
  const int64_t team = std::max<int64_t>(power_of_two(ceil_divide(piece, 8 * kHeld<T>)), 8);
  return {narrow(cuts), narrow(piece), narrow(team), ceil_divide(planes * cuts, kThreads / team)};
}

template <typename T>
auto contiguous_kernel(const StatisticsArguments<T>& args, bool wide) {
  constexpr int kMost = kHeld<T>, kHalf = kMost > 1 ? kMost / 2 : 1;
  const auto fills = [&](int lines) { return args.pixels == args.cuts * args.team * 8 * lines; };
  return !wide          ? contiguous_statistics<T, kMost, false, false>
         : fills(1)     ? contiguous_statistics<T, 1, true, true>
         : fills(kHalf) ? contiguous_statistics<T, kHalf, true, true>
         : fills(kMost) ? contiguous_statistics<T, kMost, true, true>
                        : contiguous_statistics<T, kMost, false, true>;
}

template <typename T>
size_t workspace_of(const Shape& shape, const Device& device) {
  const Cuts cuts = cuts_of<T>(shape, device);
  return cuts.cuts == 1 ? 0 : 2 * sizeof(accumulator_t<T>) * cuts.cuts * shape.n * shape.c;
}

template <typename T>
const char* statistics_of(const Statistics& call, const Device& device, void* stream) {
  using A = accumulator_t<T>;
  const Shape& shape = call.shape;
  const Cuts cuts = cuts_of<T>(shape, device);
  const T* x = numbers<T>(call.x);
  const int64_t pixels = shape.h * shape.w;
  const StatisticsArguments<T> args{x,
                                    results<A>(call.mean),
                                    results<A>(call.rstd),
                                    cuts.cuts == 1 ? nullptr : results<A>(call.workspace),
                                    static_cast<A>(call.eps),
                                    shape.n,
                                    shape.n * shape.c,
                                    narrow(shape.c),
                                    narrow(pixels),
                                    cuts.cuts,
                                    cuts.piece,
                                    cuts.team};
  const bool wide = is_wide(x, shape.channels_last ? shape.c : pixels);
  const char* error = shape.channels_last
                          ? launch(wide ? channels_last_statistics<T, true> : channels_last_statistics<T, false>,
                                   cuts.blocks, 8 * kThreads * sizeof(Moments<A>), stream, args)
                          : launch(contiguous_kernel<T>(args, wide), cuts.blocks, 3 * kWarps * sizeof(A), stream, args);
  if (error != nullptr || cuts.cuts == 1) return error;
  return launch(join_pieces<T>, ceil_divide(args.planes, kWarp), kThreads * sizeof(Moments<A>), stream, args);
}

}  // namespace

size_t statistics_workspace(const Shape& shape, const Device& device) {
  return SC_LAYERS_DISPATCH(shape.scalar, workspace_of, shape, device);
}

const char* launch_statistics(const Statistics& call, const Device& device, void* stream) {
  return SC_LAYERS_DISPATCH(call.shape.scalar, statistics_of, call, device, stream);
}

}  // namespace sc_layers
