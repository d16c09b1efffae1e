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

// The two rows of a tile that a lane holds.
template <typename T>
struct Rows {
  Eight<T> row[2];
};

// Features on their way to a lane: its rows of some steps in shared memory, where asynchronous copies put them ahead of
// their use. No other lane touches them, so no barrier is needed.
template <typename T, int kTensors>
class Feed {
 public:
  static constexpr int kStages = sizeof(T) == 8 ? 1 : 2;
  static constexpr int kAccesses = Eight<T>::kAccesses;
  static constexpr int kBytes = kStages * kTensors * 2 * kAccesses * kThreads * kAccess;

  __device__ Feed(unsigned char* shared, const Walk& walk) : own_(shared + threadIdx.x * kAccess), walk_(walk) {}

  // Begins to copy what a lane holds of `tensor` in the step that starts with `row`.
  __device__ void fetch(int step, int tensor, const T* features, int row, int column) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = row + 8 * half, count = at < walk_.rows ? walk_.columns - column : 0;
      const T* address = features + static_cast<int64_t>(at) * walk_.columns + column;
#pragma unroll
      for (int access = 0; access < kAccesses; ++access) {
        constexpr int kEach = Eight<T>::kEach;
        uint4* target = slot(step, tensor, half * kAccesses + access);
        const int left = count - access * kEach;
        if (walk_.wide) {
          copy_async(target, left > 0 ? address + access * kEach : features, left > 0);
        } else {
          T elements[kEach] = {};
#pragma unroll
          for (int i = 0; i < kEach; ++i) {
            if (i < left) elements[i] = load(address + access * kEach + i);
          }
          memcpy(target, elements, kAccess);
        }
      }
    }
  }
  // What was fetched for a step; all its copies must have ended.
  __device__ Rows<T> take(int step, int tensor) const {
    Rows<T> rows;
#pragma unroll
    for (int i = 0; i < 2 * kAccesses; ++i) {
      const uint4 bits = *slot(step, tensor, i);
      memcpy(&rows.row[i / kAccesses].word[i % kAccesses * 4], &bits, kAccess);
    }
    return rows;
  }

 private:
  __device__ uint4* slot(int step, int tensor, int access) const {
    const int index = (step % kStages * kTensors + tensor) * 2 * kAccesses + access;
    return reinterpret_cast<uint4*>(own_ + index * kThreads * kAccess);
  }
  unsigned char* own_;
  const Walk& walk_;
};

template <typename T>
__device__ inline void store_rows(T* features, const Walk& walk, int row, int column, const Rows<T>& rows) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = row + 8 * half;
    store_eight(features + static_cast<int64_t>(at) * walk.columns + column, rows.row[half],
                at < walk.rows ? walk.columns - column : 0, walk.wide);
  }
}

// The tables of one sample, as one lane of four reads them.
template <typename T>
struct SampleTables {
  const Tables<T>& tables;
  int64_t sample;
  int lane;

  __device__ Codes<T> weights(int group, int pixel) const {
    return load(tables.weights + (4 * (group * tables.samples + sample) + lane) * tables.pixel_rows + pixel);
  }
  __device__ Codes<T> scale(int group, int channel) const { return style(group, channel, 0); }
  __device__ Codes<T> bias(int group, int channel) const { return style(group, channel, 1); }
  __device__ Codes<T> style(int group, int channel, int which) const {
    const int64_t plane = 4 * (2 * (group * tables.samples + sample) + which) + lane;
    return load(tables.styles + plane * tables.channel_rows + channel);
  }
  __device__ accumulator_t<T> keep(int pixel) const { return load(tables.keep + sample * tables.pixel_rows + pixel); }
};

// sum += rows columns^T over eight codes. A tensor core's 16 columns take two products of pieces at a time; left out are
// those below the last bit that counts.
template <typename T, typename A = accumulator_t<T>>
__device__ inline void add_product(A (&sum)[4], const Codes<T> (&rows)[2], const Codes<T>& columns) {
  const auto& a = rows[0].piece;
  const auto& b = rows[1].piece;
  const auto& c = columns.piece;
  if constexpr (Format<T>::kPieces == 1) {
    multiply(sum, {a[0], b[0], {}, {}}, {c[0], {}});
  } else if constexpr (Format<T>::kPieces == 2) {
    multiply(sum, {a[0], b[0], a[1], b[1]}, {c[1], c[1]});
    multiply(sum, {a[0], b[0], a[1], b[1]}, {c[0], c[0]});
  } else {
    multiply(sum, {a[0], b[0], a[2], b[2]}, {c[2], c[0]});
    multiply(sum, {a[0], b[0], a[1], b[1]}, {c[1], c[1]});
    multiply(sum, {a[0], b[0], a[1], b[1]}, {c[0], c[0]});
  }
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
