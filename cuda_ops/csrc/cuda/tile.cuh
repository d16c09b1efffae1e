// What the forward and the backward kernel share: a block's piece of the work, its features on chip, blend weights.
#pragma once

#include "device.cuh"
#include "plan.h"

namespace sc_layers {

// Sizes of a call; a plane has fewer than 2^31 pixels, everything beyond a plane is indexed with 64 bits.
struct Sizes {
  int64_t samples;
  int channels, height, width, pixels, codes, rects;
  bool channels_last;
};

// The gates of all codes as the first launch leaves them, and what they are multiplied by.
template <typename A>
struct Gates {
  const A* h;     // [n, k, j, h]
  const A* w;     // [n, k, j, w]
  const A* gain;  // [k] or null
};

// What a block works on: one sample's pixels [first_pixel, first_pixel + pixels) of channels [first_channel,
// first_channel + channels). It lies in shared memory, written by one thread, with the counters of the outer loops: in
// registers it would crowd out what the inner loops keep there.
struct Span {
  int64_t item;  // which piece of the work
  int64_t sample;
  int first_channel, channels;
  int first_pixel, pixels;
  int group, slice, batch, pass;
};
static_assert(sizeof(Span) <= kSpanBytes);

__device__ inline void begin(Span& span) {
  if (thread_index() == 0) span.item = static_cast<int64_t>(blockIdx.x) - gridDim.x;
}

// Goes on to the block's next piece, if there is one. Grids have a limit, so a block takes every gridDim.x-th piece.
__device__ inline bool enter_next_item(Span& span, const Sizes& sizes, const Plan& plan) {
  if (thread_index() == 0) {
    span.item += gridDim.x;
    span.slice = static_cast<int>(span.item % plan.slices);
    const int64_t rest = span.item / plan.slices;
    span.group = static_cast<int>(rest % plan.groups);
    span.sample = rest / plan.groups;
    span.first_pixel = span.slice * plan.slice;
    span.pixels = min(plan.slice, sizes.pixels - span.first_pixel);
    span.batch = -1;
  }
  __syncthreads();
  return span.item < plan.blocks;
}

// Goes on to the piece's next batch of channels, if there is one.
__device__ inline bool enter_next_batch(Span& span, const Sizes& sizes, const Plan& plan) {
  if (thread_index() == 0) {
    span.batch += 1;
    span.pass = -1;
    const int64_t first = (static_cast<int64_t>(span.group) * plan.batches + span.batch) * plan.batch;
    span.first_channel = static_cast<int>(min(first, static_cast<int64_t>(sizes.channels)));
    span.channels = min(plan.batch, sizes.channels - span.first_channel);
  }
  __syncthreads();
  return span.batch < plan.batches;
}

// Goes on to the batch's next pass of those from `first` to `last`, if there is one.
__device__ inline bool enter_next_pass(Span& span, int first, int last) {
  __syncthreads();  // all threads have seen the last one
  if (thread_index() == 0) span.pass = max(first, span.pass + 1);
  __syncthreads();
  return span.pass <= last;
}

// Logarithm of the number of threads that walk along one row of `count` items, at most a warp.
__device__ inline int row_lanes_log2(int count) { return count <= 1 ? 0 : min(5, 32 - __clz(count - 1)); }

// [n, c, h, w]: every channel is a run of pixels, moved in widest accesses between a scalar head and a scalar tail.
// The body of a run that does not start on a boundary goes element by element on the side of the shared memory.
template <typename T, bool kLoad>
__device__ inline void move_rows(T* tile, T* data, const Sizes& sizes, const Plan& plan, const Span& span) {
  constexpr int kSize = Packet<T>::kSize;
  const int lanes_log2 = row_lanes_log2(ceil_divide(span.pixels, kSize));
  const int lanes = 1 << lanes_log2;
  const auto [first_row, lane] = split(thread_index(), lanes_log2);
  const int row_step = kThreads >> lanes_log2;
  for (int row = first_row; row < span.channels; row += row_step) {
    T* near = tile + row * plan.stride;
    T* far = data + (span.sample * sizes.channels + span.first_channel + row) * sizes.pixels + span.first_pixel;
    const int past = static_cast<int>(reinterpret_cast<uintptr_t>(far) / sizeof(T) % kSize);
    const int head = min(span.pixels, (kSize - past) % kSize);
    const int packets = (span.pixels - head) / kSize;
    const int tail = head + packets * kSize;
    for (int i = lane; i < head; i += lanes) {
      if constexpr (kLoad)
        near[i] = load(far + i);
      else
        store(far + i, near[i]);
    }
    if (head == 0) {
#pragma unroll 4
      for (int i = lane; i < packets; i += lanes) {
        if constexpr (kLoad)
          write_shared<kAccess>(near + i * kSize, load_bits<kAccess>(far + i * kSize));
        else
          store_bits<kAccess>(far + i * kSize, read_shared<kAccess>(near + i * kSize));
      }
    } else {
      for (int i = lane; i < packets; i += lanes) {
        Packet<T> packet;
        if constexpr (kLoad) packet = load_packet(far + head + i * kSize);
#pragma unroll
        for (int e = 0; e < kSize; ++e) {
          if constexpr (kLoad)
            near[head + i * kSize + e] = packet.value[e];
          else
            packet.value[e] = near[head + i * kSize + e];
        }
        if constexpr (!kLoad) store_packet(far + head + i * kSize, packet);
      }
    }
    for (int i = tail + lane; i < span.pixels; i += lanes) {
      if constexpr (kLoad)
        near[i] = load(far + i);
      else
        store(far + i, near[i]);
    }
  }
}

// [n, h, w, c]: every pixel has its channels side by side; they are transposed on the way to and from the chip.
template <typename T, bool kLoad>
__device__ inline void move_pixels(T* tile, T* data, const Sizes& sizes, const Plan& plan, const Span& span) {
  constexpr int kSize = Packet<T>::kSize;
  T* first = data + (span.sample * sizes.pixels + span.first_pixel) * sizes.channels + span.first_channel;
  const bool aligned =
      sizes.channels % kSize == 0 && plan.batch % kSize == 0 && reinterpret_cast<uintptr_t>(data) % kAccess == 0;
  constexpr int kSizeLog2 = kSize == 8 ? 3 : kSize == 4 ? 2 : 1;
  const int lanes_log2 = aligned ? plan.batch_log2 - kSizeLog2 : plan.batch_log2;  // along the channels
  const auto [first_pixel, lane] = split(thread_index(), lanes_log2);
  const int pixel_step = kThreads >> lanes_log2;
  const int row = lane * (aligned ? kSize : 1);
  if (row >= span.channels) return;
#pragma unroll 4
  for (int pixel = first_pixel; pixel < span.pixels; pixel += pixel_step) {
    T* far = first + static_cast<int64_t>(pixel) * sizes.channels + row;
    T* near = tile + row * plan.stride + pixel;
    if (aligned) {
      Packet<T> packet;
      if constexpr (kLoad) packet = load_packet(far);
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
        if constexpr (kLoad)
          near[e * plan.stride] = packet.value[e];
        else
          packet.value[e] = near[e * plan.stride];
      }
      if constexpr (!kLoad) store_packet(far, packet);
    } else {
      if constexpr (kLoad)
        *near = load(far);
      else
        store(far, *near);
    }
  }
}

// Zeros where a tile has no features: the rest of the last quad, and channels beyond the last one.
template <typename T>
__device__ inline void pad_tile(T* tile, const Plan& plan, const Span& span) {
  const T zero = from_accumulator<T>(0);
  const int end = round_up(span.pixels, kQuad);
  const int missing = end - span.pixels;
  for (int i = thread_index(); i < span.channels * missing; i += kThreads) {
    tile[i / missing * plan.stride + span.pixels + i % missing] = zero;
  }
  for (int row = span.channels; row < plan.batch; ++row) {
    for (int i = thread_index(); i < end; i += kThreads) tile[row * plan.stride + i] = zero;
  }
}

template <typename T>
__device__ inline void load_tile(T* tile, const T* data, const Sizes& sizes, const Plan& plan, const Span& span) {
  T* source = const_cast<T*>(data);  // only read
  if (sizes.channels_last)
    move_pixels<T, true>(tile, source, sizes, plan, span);
  else
    move_rows<T, true>(tile, source, sizes, plan, span);
  pad_tile(tile, plan, span);
}

template <typename T>
__device__ inline void store_tile(T* data, T* tile, const Sizes& sizes, const Plan& plan, const Span& span) {
  if (sizes.channels_last)
    move_pixels<T, false>(tile, data, sizes, plan, span);
  else
    move_rows<T, false>(tile, data, sizes, plan, span);
}

// Scale and bias of the batch's channels as [k, channel, 2]; zeros beyond the last channel.
template <typename A>
__device__ inline void load_styles(A* styles, const A* scale, const A* bias, const Sizes& sizes, const Plan& plan,
                                   const Span& span) {
  for (int i = thread_index(); i < sizes.codes * plan.batch; i += kThreads) {
    const auto [code, row] = split(i, plan.batch_log2);
    const int64_t at = (span.sample * sizes.codes + code) * sizes.channels + span.first_channel + row;
    const bool inside = row < span.channels;
    styles[2 * i] = inside ? load(scale + at) : A(0);
    styles[2 * i + 1] = inside ? load(bias + at) : A(0);
  }
}

// The factor gain_k / J of every code, and the gates of the rows and columns that the span touches.
template <typename A>
__device__ inline void load_gates(A* factors, A* bands_h, A* bands_w, const Gates<A>& gates, const Sizes& sizes,
                                  const Plan& plan, const Span& span) {
  for (int code = thread_index(); code < sizes.codes; code += kThreads) {
    factors[code] = (gates.gain == nullptr ? A(1) : load(gates.gain + code)) / sizes.rects;
  }
  if (!plan.bands_on_chip) return;
  const int bands = sizes.codes * sizes.rects;
  const int first_row = span.first_pixel / sizes.width;
  const int rows = (span.first_pixel + span.pixels - 1) / sizes.width - first_row + 1;
  const A* h = gates.h + span.sample * bands * sizes.height + first_row;
  const A* w = gates.w + span.sample * bands * sizes.width;
  for (int i = thread_index(); i < bands * rows; i += kThreads) {
    const int band = i / rows, row = i % rows;
    bands_h[band * plan.band_rows + row] = load(h + static_cast<int64_t>(band) * sizes.height + row);
  }
  for (int i = thread_index(); i < bands * sizes.width; i += kThreads) bands_w[i] = load(w + i);
}

// Where a block finds the gates: on chip, or still in device memory where there are too many of them.
template <typename A, bool kOnChip>
struct Bands {
  const A* h;
  const A* w;
  int h_stride, w_stride;  // from one rectangle to the next

  __device__ const A* rows(int band, int row) const { return h + band * h_stride + row; }
  __device__ const A* columns(int band, int column) const { return w + band * w_stride + column; }

  __device__ static A one(const A* at) {
    if constexpr (kOnChip)
      return *at;
    else
      return load(at);
  }
  // kCount consecutive ones; more than one only from a multiple of kCount on.
  template <int kCount>
  __device__ static void some(const A* at, A (&values)[kCount]) {
    if constexpr (kCount == 1) {
      values[0] = one(at);
    } else if constexpr (kOnChip) {
      read_group<kCount>(at, values);
    } else {
#pragma unroll
      for (int start = 0; start < kCount; start += Packet<A>::kSize) {
        const Packet<A> packet = load_packet(at + start);
#pragma unroll
        for (int e = 0; e < Packet<A>::kSize; ++e) values[start + e] = packet.value[e];
      }
    }
  }
};

template <typename A, bool kOnChip>
__device__ inline Bands<A, kOnChip> bands_of(const A* bands_h, const A* bands_w, const Gates<A>& gates,
                                             const Sizes& sizes, const Plan& plan, const Span& span) {
  if constexpr (kOnChip) {
    const int first_row = span.first_pixel / sizes.width;
    return {bands_h - first_row, bands_w, plan.band_rows, sizes.width};
  } else {
    const int64_t bands = span.sample * sizes.codes * sizes.rects;
    return {gates.h + bands * sizes.height, gates.w + bands * sizes.width, sizes.height, sizes.width};
  }
}

// Mask a_k of kCount consecutive pixels of one row.
template <int kCount, typename A, bool kOnChip>
__device__ inline void mask_of(const Bands<A, kOnChip>& bands, A factor, int rects, int code, int row, int column,
                               A (&mask)[kCount]) {
  const A* rows = bands.rows(code * rects, row);
  const A* columns = bands.columns(code * rects, column);
  A sum[kCount] = {};
#pragma unroll 2
  for (int rect = 0; rect < rects; ++rect) {
    const A gate_h = bands.one(rows);
    A gate_w[kCount];
    bands.some(columns, gate_w);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum[i] += gate_h * gate_w[i];
    rows += bands.h_stride;
    columns += bands.w_stride;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) mask[i] = sum[i] * factor;
}

// Blend weights of the chunk that starts `start` pixels into the span, as [k + 1, chunk]: w_1 .. w_K, then the part
// of x that is kept. Pixels beyond the span repeat the last one.
template <int kCount, typename A, bool kOnChip>
__device__ inline void weigh_pixels(A* weights, const Bands<A, kOnChip>& bands, const A* factors, const Sizes& sizes,
                                    const Plan& plan, const Span& span, int start) {
  const int end = min(plan.chunk, round_up(span.pixels - start, kQuad));
  for (int i = thread_index() * kCount; i < end; i += kThreads * kCount) {
    const int pixel = span.first_pixel + min(start + i, span.pixels - kCount);
    const int row = pixel / sizes.width;
    const int column = pixel - row * sizes.width;
    A keep[kCount];
#pragma unroll
    for (int p = 0; p < kCount; ++p) keep[p] = 1;
#pragma unroll 1
    for (int code = sizes.codes - 1; code >= 0; --code) {
      A mask[kCount], weight[kCount];
      mask_of(bands, factors[code], sizes.rects, code, row, column, mask);
#pragma unroll
      for (int p = 0; p < kCount; ++p) {
        weight[p] = mask[p] * keep[p];
        keep[p] *= 1 - mask[p];
      }
      write_group(weights + code * plan.chunk + i, weight);
    }
    write_group(weights + sizes.codes * plan.chunk + i, keep);
  }
}

template <typename A, bool kOnChip>
__device__ inline void weigh_with(A* weights, const Bands<A, kOnChip>& bands, const A* factors, const Sizes& sizes,
                                  const Plan& plan, const Span& span, int start) {
  if (sizes.width % kQuad == 0)
    weigh_pixels<kQuad>(weights, bands, factors, sizes, plan, span, start);
  else
    weigh_pixels<1>(weights, bands, factors, sizes, plan, span, start);
}

template <typename A>
__device__ inline void weigh(A* weights, const A* factors, const A* bands_h, const A* bands_w, const Gates<A>& gates,
                             const Sizes& sizes, const Plan& plan, const Span& span, int start) {
  if (plan.bands_on_chip) {
    weigh_with(weights, bands_of<A, true>(bands_h, bands_w, gates, sizes, plan, span), factors, sizes, plan, span,
               start);
  } else {
    weigh_with(weights, bands_of<A, false>(bands_h, bands_w, gates, sizes, plan, span), factors, sizes, plan, span,
               start);
  }
}

// Channels that a thread blends at once; with a quad of pixels they fill its registers.
template <typename T>
constexpr int kRows = sizeof(T) == 8 ? 2 : 4;

// A block's pointers into its shared memory.
template <typename T>
struct Chip {
  using A = accumulator_t<T>;
  T* features;
  T* gradients;
  A* weights;           // [k + 1, chunk]
  A* weight_gradients;  // [parts, k + 1, slice]
  A* styles;            // [k, batch, 2]
  A* sums;              // what blocks of a cluster exchange
  A* totals;            // [batch, k, 2] d bias and d scale
  A* statistics;        // [batch, 2] mean and rstd, then what the backward pass subtracts
  A* factors;           // [k]
  A* bands_h;           // [k, j, band_rows]
  A* bands_w;           // [k, j, w]
  Span* span;
};

template <typename T>
__device__ inline Chip<T> chip_of(const Layout& at) {
  using A = accumulator_t<T>;
  unsigned char* memory = shared_memory();
  const auto accumulators = [memory](int offset) { return reinterpret_cast<A*>(memory + offset); };
  return {reinterpret_cast<T*>(memory + at.features),
          reinterpret_cast<T*>(memory + at.gradients),
          accumulators(at.weights),
          accumulators(at.weight_gradients),
          accumulators(at.styles),
          accumulators(at.sums),
          accumulators(at.totals),
          accumulators(at.statistics),
          accumulators(at.factors),
          accumulators(at.bands_h),
          accumulators(at.bands_w),
          reinterpret_cast<Span*>(memory + at.span)};
}

}  // namespace sc_layers
