// What the kernels over features read besides features: coefficients of eight codes at a time, ready for tensor cores.
//
//   y = keep x + sum_k w_k (S_k (x - mean) + b_k),  S_k = scale_k rstd
//
// is, for each of the two sums over codes, the product of a matrix that belongs to the pixels and one that belongs to the
// channels. Both are kept as tables of rows: a row holds the coefficients of eight codes for one pixel (w) or one channel
// (S, then b). For tensor cores every number is a sum of bfloat16 pieces: two give 16 bits, enough for half and bfloat16
// features, three give the 24 bits of float32. Of a row, lane t of four holds all pieces of codes 2 t and 2 t + 1.
// The code after the last one stands for `keep` in the sums of the backward pass: its S is 1, its b the mean, its w 0.
#pragma once

#include "device.cuh"

namespace sc_layers {

constexpr int kGroup = 8;  // codes of a row
constexpr int kPad = 32;   // tables have a multiple of this many rows; those beyond the end are zeros

// How features of type T want the tables: pieces of a number, and how many words a lane reads at a time for them.
template <typename T>
struct Format {
  using Word = unsigned;  // two pieces, of neighbouring codes
  static constexpr int kPieces = 2, kWords = 2;
};
template <>
struct Format<float> {
  using Word = unsigned;
  static constexpr int kPieces = 3, kWords = 4;
};
template <>
struct Format<double> {
  using Word = Doubles;
  static constexpr int kPieces = 1, kWords = 1;
};

// What one of four lanes holds of a row, the largest pieces first. Tables have a plane for each of the lanes.
template <typename T>
struct alignas(Format<T>::kWords * sizeof(typename Format<T>::Word)) Codes {
  typename Format<T>::Word piece[Format<T>::kWords];
};

// A pair of numbers as pairs of pieces.
template <int kPieces, int kWords>
__device__ inline void split(float low, float high, unsigned (&pieces)[kWords]) {
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    pieces[p] = pack_bfloat16(low, high);
    low -= float_of(pieces[p] << 16);
    high -= float_of(pieces[p] & 0xffff0000u);
  }
}
template <int kPieces>
__device__ inline void split(double low, double high, Doubles (&pieces)[1]) {
  pieces[0] = {low, high};
}

template <typename T, typename A>
__device__ inline void store_row(Codes<T>* row, int64_t plane, const A (&values)[kGroup]) {
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    Codes<T> codes{};
    split<Format<T>::kPieces>(values[2 * lane], values[2 * lane + 1], codes.piece);
    store(row + lane * plane, codes);
  }
}

// The tables of a call, in its scratch memory, and their sizes.
template <typename T>
struct Tables {
  using A = accumulator_t<T>;
  A* gates_h;         // [n, k, j, h]
  A* gates_w;         // [n, k, j, w]
  A* keep;            // [n, pixel_rows]
  A* masks;           // [n, k, h w]: a_k for the backward pass, else null
  Codes<T>* weights;  // [groups, n, 4, pixel_rows]
  Codes<T>* styles;   // [groups, n, 2, 4, channel_rows]
  int64_t samples;
  int channels, pixels, width, height, codes, rects;
  int channel_rows, pixel_rows;
  int groups;  // of eight codes, `keep` included

  __host__ __device__ int weight_groups() const { return static_cast<int>(ceil_divide(codes, kGroup)); }
};

// Hands out scratch memory in order; without memory it only counts.
class Scratch {
 public:
  explicit Scratch(void* start) : start_(static_cast<unsigned char*>(start)) {}
  template <typename A>
  A* take(int64_t count) {
    constexpr size_t kAlignment = 256;
    const size_t at = bytes_;
    bytes_ = (at + sizeof(A) * count + kAlignment - 1) / kAlignment * kAlignment;
    return start_ == nullptr ? nullptr : reinterpret_cast<A*>(start_ + at);
  }
  size_t bytes() const { return bytes_; }

 private:
  unsigned char* start_;
  size_t bytes_ = 0;
};

template <typename T, typename A = accumulator_t<T>>
Tables<T> tables_of(const Shape& s, Scratch& scratch, bool with_masks) {
  Tables<T> tables{};
  tables.samples = s.n;
  tables.channels = static_cast<int>(s.c);
  tables.pixels = static_cast<int>(s.h * s.w);
  tables.width = static_cast<int>(s.w);
  tables.height = static_cast<int>(s.h);
  tables.codes = static_cast<int>(s.k);
  tables.rects = static_cast<int>(s.j);
  tables.channel_rows = static_cast<int>(ceil_divide(s.c, kPad) * kPad);
  tables.pixel_rows = static_cast<int>(ceil_divide(s.h * s.w, kPad) * kPad);
  tables.groups = static_cast<int>(ceil_divide(s.k + 1, kGroup));
  tables.gates_h = scratch.take<A>(s.n * s.k * s.j * s.h);
  tables.gates_w = scratch.take<A>(s.n * s.k * s.j * s.w);
  tables.keep = scratch.take<A>(s.n * tables.pixel_rows);
  if (with_masks) tables.masks = scratch.take<A>(s.n * s.k * s.h * s.w);
  tables.weights = scratch.take<Codes<T>>(4 * tables.groups * s.n * tables.pixel_rows);
  tables.styles = scratch.take<Codes<T>>(8 * tables.groups * s.n * tables.channel_rows);
  return tables;
}

// Fill the tables; in tables.cu.
template <typename T>
const char* make_tables(const Shape& shape, const Group& group, const Tables<T>& tables, void* stream);

// The soft band of a gate: softmaxes of two vectors of logits, and their cumulative sums, walked by a warp.
template <typename A>
__device__ inline A inclusive_scan(A value, int lane) {
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const A other = __shfl_up_sync(kAllLanes, value, offset);
    if (lane >= offset) value += other;
  }
  return value;
}

template <typename A>
struct Band {
  const A* start;
  const A* end;
  int length, lane;
  A start_max, end_max, start_scale, end_scale;

  __device__ Band(const A* logits, int length_, int lane_)
      : start(logits), end(logits + length_), length(length_), lane(lane_) {
    softmax_of(start, start_max, start_scale);
    softmax_of(end, end_max, end_scale);
  }

  __device__ void softmax_of(const A* logits, A& largest, A& scale) const {
    largest = load(logits);
    for (int i = lane; i < length; i += kWarp) {
      const A value = load(logits + i);
      largest = value > largest ? value : largest;
    }
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const A other = __shfl_xor_sync(kAllLanes, largest, offset);
      largest = other > largest ? other : largest;
    }
    A sum = 0;
    for (int i = lane; i < length; i += kWarp) sum += exponential(load(logits + i) - largest);
    scale = A(1) / team_sum(sum);
  }

  // Calls visit(i, p_start, p_end, cumax_start, cumax_end) for every position, 32 at a time and in order; all lanes
  // call it, those beyond the end with zeros.
  template <typename Visit>
  __device__ void walk(Visit visit) const {
    A start_sum = 0, end_sum = 0;
    for (int first = 0; first < length; first += kWarp) {
      const int i = first + lane;
      const bool inside = i < length;
      const A p_start = inside ? exponential(load(start + i) - start_max) * start_scale : A(0);
      const A p_end = inside ? exponential(load(end + i) - end_max) * end_scale : A(0);
      const A cumax_start = start_sum + inclusive_scan(p_start, lane);
      const A cumax_end = end_sum + inclusive_scan(p_end, lane);
      visit(i, p_start, p_end, cumax_start, cumax_end);
      start_sum = __shfl_sync(kAllLanes, cumax_start, kWarp - 1);
      end_sum = __shfl_sync(kAllLanes, cumax_end, kWarp - 1);
    }
  }
};

// a_k of one pixel without the factor gain_k / J.
template <typename T, typename A = accumulator_t<T>>
__device__ inline A rectangles_at(const Tables<T>& tables, int64_t sample, int code, int row, int column) {
  const int64_t first = (sample * tables.codes + code) * tables.rects;
  const A* gates_h = tables.gates_h + first * tables.height + row;
  const A* gates_w = tables.gates_w + first * tables.width + column;
  A sum = 0;
#pragma unroll 4
  for (int rect = 0; rect < tables.rects; ++rect) {
    sum += load(gates_h + static_cast<int64_t>(rect) * tables.height) *
           load(gates_w + static_cast<int64_t>(rect) * tables.width);
  }
  return sum;
}

}  // namespace sc_layers
