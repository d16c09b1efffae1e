// How a warp walks over features: tiles of 16 rows and 32 columns, columns being what lies together in memory.
//
// Contiguous features have channels as rows and pixels as columns, channels_last the other way round. Of a tile, lane
// 4 i + t holds rows i and i + 8, columns 8 t to 8 t + 7: 16-byte accesses, and pairs of columns (2 t, 2 t + 1 of four
// 8x8 blocks) just as tensor cores hand out results and take operands. A warp keeps its columns and walks over rows, so
// what depends on the column stays in registers, and what depends on the row is a row of a table in the caches.
#pragma once

#include "tables.cuh"

namespace sc_layers {

constexpr int kTileRows = 16, kTileColumns = 32, kBlocks = 4;  // 8x8 blocks side by side

struct Walk {
  int rows, columns;      // of one sample
  int tiles, parts;       // a warp's work: a tile of columns, and a part of the rows
  int rows_each;          // of a part, a multiple of kTileRows
  bool wide;
};

struct Lane {
  int row, column;  // i and t above
  __device__ Lane() : row(threadIdx.x % kWarp / 4), column(threadIdx.x % 4) {}
  // The column of block `j` for which this lane holds a row of a table, as an operand.
  __device__ int operand_column(int j) const { return 8 * (row / 2) + 2 * j + row % 2; }
};

// Where a warp works: neighbouring warps take neighbouring tiles.
struct Place {
  int64_t sample;
  int column, row, end;
  bool exists;

  __device__ Place(const Walk& walk, int64_t samples) {
    const int64_t warp = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    column = static_cast<int>(warp % walk.tiles) * kTileColumns;
    row = static_cast<int>(warp / walk.tiles % walk.parts) * walk.rows_each;
    end = min(row + walk.rows_each, walk.rows);
    sample = warp / walk.tiles / walk.parts;
    exists = sample < samples;
  }
};

// Whether a walk loads features one step ahead. Wide types fill the registers with one step.
template <typename T>
constexpr bool kAhead = sizeof(T) == 2;

// The two rows of a tile that a lane holds.
template <typename T>
struct Rows {
  Eight<T> row[2];
};
template <typename T>
__device__ inline Rows<T> load_rows(const T* features, const Walk& walk, int row, int column) {
  Rows<T> rows;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = row + 8 * half;
    rows.row[half] =
        load_eight(features + static_cast<int64_t>(at) * walk.columns + column, at < walk.rows ? walk.columns - column : 0, walk.wide);
  }
  return rows;
}
template <typename T>
__device__ inline void store_rows(T* features, const Walk& walk, int row, int column, const Rows<T>& rows) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = row + 8 * half;
    store_eight(features + static_cast<int64_t>(at) * walk.columns + column, rows.row[half],
                at < walk.rows ? walk.columns - column : 0, walk.wide);
  }
}

// Rows of the tables of one sample.
template <typename T>
struct SampleTables {
  static constexpr int kBytes = RowOf<T>::kBytes;
  using Row = Codes<RowOf<T>::kPieces>;
  const Tables<float>& tables;
  int64_t sample;
  int lane;  // 0 to 3

  __device__ Row weights(int group, int pixel) const {
    const int64_t row = (group * tables.samples + sample) * tables.pixel_rows + pixel;
    return load_codes<T>(tables.weights + row * kBytes, lane);
  }
  __device__ Row scale(int group, int channel) const { return style(group, channel, 0); }
  __device__ Row bias(int group, int channel) const { return style(group, channel, 1); }
  __device__ Row style(int group, int channel, int which) const {
    const int64_t row = (group * tables.samples + sample) * tables.channel_rows + channel;
    return load_codes<T>(tables.styles + (2 * row + which) * kBytes, lane);
  }
  __device__ float keep(int pixel) const { return load(tables.keep + sample * tables.pixel_rows + pixel); }
};

// sum += rows columns^T over eight codes. The tensor core's 16 columns take two products of pieces at a time; left out
// are those below the last bit that counts.
__device__ inline void add_product(float (&sum)[4], const Codes<2> (&rows)[2], const Codes<2>& columns) {
  const auto& [a, b] = rows;
  const unsigned pieces[4] = {a.piece[0], b.piece[0], a.piece[1], b.piece[1]};
  multiply(sum, pieces, {columns.piece[1], columns.piece[1]});
  multiply(sum, pieces, {columns.piece[0], columns.piece[0]});
}
__device__ inline void add_product(float (&sum)[4], const Codes<3> (&rows)[2], const Codes<3>& columns) {
  const auto& [a, b] = rows;
  const unsigned ends[4] = {a.piece[0], b.piece[0], a.piece[2], b.piece[2]};
  const unsigned large[4] = {a.piece[0], b.piece[0], a.piece[1], b.piece[1]};
  multiply(sum, ends, {columns.piece[2], columns.piece[0]});
  multiply(sum, large, {columns.piece[1], columns.piece[1]});
  multiply(sum, large, {columns.piece[0], columns.piece[0]});
}

// Parts so many that all multiprocessors have a few rounds of work.
template <typename T>
inline Walk walk_of(const Shape& shape, const Device& device, bool wide) {
  constexpr int kWarpsEach = 64;
  const int64_t pixels = shape.h * shape.w;
  const int64_t rows = shape.channels_last ? pixels : shape.c, columns = shape.channels_last ? shape.c : pixels;
  const int64_t tiles = ceil_divide(columns, kTileColumns);
  const int64_t wanted = ceil_divide(static_cast<int64_t>(kWarpsEach) * device.multiprocessors, shape.n * tiles);
  const int64_t most = ceil_divide(rows, kTileRows);
  const int64_t rows_each = ceil_divide(most, std::min(wanted, most)) * kTileRows;
  return {static_cast<int>(rows),
          static_cast<int>(columns),
          static_cast<int>(tiles),
          static_cast<int>(ceil_divide(rows, rows_each)),
          static_cast<int>(rows_each),
          wide};
}

}  // namespace sc_layers
