// The scratch memory of the backward pass: weights, and sums on their way to gradients.
#pragma once

#include "weights.cuh"

namespace sc_layers {

constexpr int kGroup = 8;                                      // codes whose sums are found at a time
constexpr int kTileRows = 16, kTileColumns = 32, kBlocks = 4;  // of a warp: 8x8 blocks side by side

// Of the gradient of a plane: constant + slope * (x - mean) comes on top of what its pixel adds.
template <typename A>
struct alignas(4 * sizeof(A)) Norm {
  A mean, constant, slope, unused;
};

// How tensor cores want scale and bias of one code for two neighbouring channels: in pieces, the largest first. Two
// pieces in half precision give 16 bits or more, three the 24 bits of float32.
template <typename T>
struct Format {
  using Word = unsigned;  // a piece of two numbers
  static constexpr int kPieces = 2;
};
template <>
struct Format<float> {
  using Word = unsigned;
  static constexpr int kPieces = 3;
};
template <>
struct Format<double> {
  using Word = Doubles;
  static constexpr int kPieces = 1;
};
template <typename T>
struct alignas(sizeof(T) == 2 ? 16 : 32) Style {
  typename Format<T>::Word scale[Format<T>::kPieces], bias[Format<T>::kPieces];
};

// How the sums over features are cut. A block has `column_warps` warps side by side and kWarps / column_warps below
// each other; every one of the latter makes a part of the sums over rows, every block one of the sums over columns.
struct SumsCut {
  int column_warps, column_blocks, row_blocks, rows_each;  // rows of a warp
  int channel_parts, pixel_parts;
};

// Tiles side by side that a warp takes: sums over columns are handed on at every step, which costs traffic.
template <typename T>
constexpr int owned_tiles(bool channels_last) {
  return channels_last || sizeof(T) > 2 ? 1 : 2;
}

template <typename T>
SumsCut sums_cut(const Shape& shape, const Device& device) {
  const int64_t pixels = shape.h * shape.w;
  const int64_t rows = shape.channels_last ? pixels : shape.c, columns = shape.channels_last ? shape.c : pixels;
  const int64_t owned = kTileColumns * owned_tiles<T>(shape.channels_last);
  const int64_t column_warps = std::min<int64_t>(power_of_two(ceil_divide(columns, owned)), kWarps);
  const int64_t row_warps = kWarps / column_warps, column_blocks = ceil_divide(columns, owned * column_warps);
  // Parts of the sums over rows cost traffic, the ones for pixels most; those for channels have four steps at least.
  const int64_t wanted = (shape.channels_last ? 8 : 3) * device.multiprocessors / (shape.n * column_blocks);
  const int64_t parts =
      std::max<int64_t>(1, std::min(wanted, ceil_divide(rows, (shape.channels_last ? 4 : 1) * kTileRows * row_warps)));
  const int64_t rows_each = ceil_divide(ceil_divide(rows, parts * row_warps), kTileRows) * kTileRows;
  const int64_t row_blocks = ceil_divide(rows, rows_each * row_warps), row_parts = row_blocks * row_warps;
  return {narrow(column_warps),
          narrow(column_blocks),
          narrow(row_blocks),
          narrow(rows_each),
          narrow(shape.channels_last ? row_parts : column_blocks),
          narrow(shape.channels_last ? column_blocks : row_parts)};
}

template <typename T>
struct BackwardTables {
  using A = accumulator_t<T>;
  Weights<A> weights;
  SumsCut cut;
  Norm<A>* norms;    // [n c]
  Style<T>* styles;  // [groups, n, 8, channel_pairs]; the code after the last one stands for `keep`
  A* channel_sums;   // [groups, channel_parts, n, c, 2, slots]: over pixels of g w_k and g x_hat w_k
  A* pixel_sums;     // [groups, pixel_parts, n, h w, slots]: over channels, dL/dw_k, the last one dL/dkeep
  A* mask_grads;     // [n, k, h w]
  A* row_grads;      // [n, k, j, h]: dL/dgate_h without the factor gain_k / J
  A* column_grads;   // [n, k, j, w]: dL/dgate_w likewise
  int groups, slots, channel_pairs;
  size_t bytes;
};

template <typename T, typename A = accumulator_t<T>>
BackwardTables<T> backward_tables_of(const Shape& s, const Device& device, void* workspace) {
  Scratch scratch(workspace);
  BackwardTables<T> all{};
  all.weights = weights_of<A>(s, scratch, true);
  all.cut = sums_cut<T>(s, device);
  all.groups = narrow(ceil_divide(s.k + 1, kGroup));
  all.slots = narrow(std::min<int64_t>(s.k + 1, kGroup));
  all.channel_pairs = narrow(ceil_divide(s.c, kTileColumns) * kTileColumns / 2);
  const int64_t planes = s.n * s.c, pixels = s.n * s.h * s.w, slots = all.groups * all.slots;
  all.norms = scratch.take<Norm<A>>(planes);
  all.styles = scratch.take<Style<T>>(all.groups * s.n * kGroup * all.channel_pairs);
  all.channel_sums = scratch.take<A>(2 * slots * all.cut.channel_parts * planes);
  all.pixel_sums = scratch.take<A>(slots * all.cut.pixel_parts * pixels);
  all.mask_grads = scratch.take<A>(s.k * pixels);
  all.row_grads = scratch.take<A>(s.n * s.k * s.j * s.h);
  all.column_grads = scratch.take<A>(s.n * s.k * s.j * s.w);
  all.bytes = scratch.bytes();
  return all;
}

// From `channel_sums` and `pixel_sums` to every gradient of the first half; in gradients.cu.
template <typename T>
const char* finish_sums(const BackwardSums& call, const BackwardTables<T>& all, void* stream);

}  // namespace sc_layers
