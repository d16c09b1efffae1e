// The scratch memory of the backward pass: the tables, and sums on their way to gradients.
#pragma once

#include "tables.cuh"

namespace sc_layers {

// Of the gradient of a plane: constant + slope * (x - mean) comes on top of what its pixel adds.
template <typename A>
struct alignas(4 * sizeof(A)) Norm {
  A mean, constant, slope, unused;
};

// How the sums over features are cut. A block has `column_warps` warps side by side and kWarps / column_warps below each
// other; every one of the latter makes a part of the sums over rows, every block one of the sums over columns.
struct SumsCut {
  int column_warps, column_blocks, row_blocks, rows_each;  // rows of a warp
  int channel_parts, pixel_parts;
};

inline SumsCut sums_cut(const Shape& shape, const Device& device) {
  constexpr int kRows = 16, kColumns = 32;
  const int64_t pixels = shape.h * shape.w;
  const int64_t rows = shape.channels_last ? pixels : shape.c, columns = shape.channels_last ? shape.c : pixels;
  const int64_t column_warps = std::min<int64_t>(power_of_two(ceil_divide(columns, kColumns)), kWarps);
  const int64_t row_warps = kWarps / column_warps, column_blocks = ceil_divide(columns, kColumns * column_warps);
  // Parts of the sums over rows cost traffic: the ones for pixels more than the ones for channels.
  const int64_t wanted = (shape.channels_last ? 8 : 2) * device.multiprocessors / (shape.n * column_blocks);
  const int64_t most = ceil_divide(rows, kRows * row_warps);
  const int64_t parts = std::max<int64_t>(1, std::min(wanted, most));
  const int64_t rows_each = ceil_divide(ceil_divide(rows, parts * row_warps), kRows) * kRows;
  const int64_t row_blocks = ceil_divide(rows, rows_each * row_warps), row_parts = row_blocks * row_warps;
  return {static_cast<int>(column_warps),
          static_cast<int>(column_blocks),
          static_cast<int>(row_blocks),
          static_cast<int>(rows_each),
          static_cast<int>(shape.channels_last ? row_parts : column_blocks),
          static_cast<int>(shape.channels_last ? column_blocks : row_parts)};
}

template <typename T>
struct BackwardTables {
  using A = accumulator_t<T>;
  Tables<T> tables;
  SumsCut cut;
  Norm<A>* norms;   // [n c]
  A* channel_sums;  // [groups, channel_parts, n, c, 2, slots]: over pixels of g w_k and g (x - mean) w_k
  A* pixel_sums;    // [groups, pixel_parts, n, h w, slots]: over channels, dL/dw_k, the last one dL/dkeep
  A* mask_grads;    // [n, k, h w]
  A* row_grads;     // [n, k, j, h]: dL/dgate_h without the factor gain_k / J
  A* column_grads;  // [n, k, j, w]: dL/dgate_w likewise
  int slots;
  size_t bytes;
};

template <typename T, typename A = accumulator_t<T>>
BackwardTables<T> backward_tables_of(const Shape& s, const Device& device, void* workspace) {
  Scratch scratch(workspace);
  BackwardTables<T> all{};
  all.tables = tables_of<T>(s, scratch, true);
  all.cut = sums_cut(s, device);
  all.slots = static_cast<int>(std::min<int64_t>(s.k + 1, kGroup));
  const int64_t planes = s.n * s.c, pixels = s.n * s.h * s.w, slots = all.tables.groups * all.slots;
  all.norms = scratch.take<Norm<A>>(planes);
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
