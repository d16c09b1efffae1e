// gate = cumax(start) (1 - cumax(end)),  a_k = gain_k / J sum_j outer(gate_h, gate_w),
// w_k = a_k prod_{l>k} (1 - a_l),  keep = prod_k (1 - a_k),  S_k = scale_k rstd:  the tables of tables.cuh.
#include "tables.cuh"

namespace sc_layers {
namespace {

template <typename T>
struct TableArguments {
  using A = accumulator_t<T>;
  const A* logits_h;
  const A* logits_w;
  const A* scale;
  const A* bias;
  const A* mean;
  const A* rstd;
  const A* gain;
  Tables<T> tables;
  int64_t gate_blocks;
};

template <typename T, typename A = accumulator_t<T>>
__device__ inline void make_gate(const Tables<T>& tables, const A* logits_h, const A* logits_w, int64_t index) {
  const int64_t bands = tables.samples * tables.codes * tables.rects;
  if (index >= 2 * bands) return;
  const bool vertical = index < bands;
  const int64_t at = vertical ? index : index - bands;
  const int length = vertical ? tables.height : tables.width;
  A* gates = (vertical ? tables.gates_h : tables.gates_w) + at * length;
  const Band<A> band((vertical ? logits_h : logits_w) + 2 * at * length, length, threadIdx.x % kWarp);
  band.walk([&](int i, A, A, A cumax_start, A cumax_end) {
    if (i < length) store(gates + i, cumax_start * (1 - cumax_end));
  });
}

template <typename T>
__device__ inline void make_styles(const TableArguments<T>& args, int64_t index) {
  using A = accumulator_t<T>;
  const Tables<T>& tables = args.tables;
  const int64_t rows = tables.samples * tables.channel_rows;
  if (index >= rows * tables.groups) return;
  const int group = static_cast<int>(index / rows);
  const int64_t sample = index % rows / tables.channel_rows;
  const int channel = static_cast<int>(index % tables.channel_rows);
  const bool exists = channel < tables.channels;
  const int64_t plane = sample * tables.channels + channel;
  const A rstd = exists ? load(args.rstd + plane) : A(0), mean = exists ? load(args.mean + plane) : A(0);
  A scale[kGroup], bias[kGroup];
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    const int code = group * kGroup + i;
    const int64_t at = (sample * tables.codes + code) * tables.channels + channel;
    const bool is_code = exists && code < tables.codes, is_keep = exists && code == tables.codes;
    scale[i] = is_code ? load(args.scale + at) * rstd : is_keep ? A(1) : A(0);
    bias[i] = is_code ? load(args.bias + at) : is_keep ? mean : A(0);
  }
  const int64_t stride = tables.channel_rows;
  Codes<T>* codes = tables.styles + 8 * (group * tables.samples + sample) * stride + channel;
  store_row<T>(codes, stride, scale);
  store_row<T>(codes + 4 * stride, stride, bias);
}

// The first blocks make gates, a warp each; the others rows of styles, a thread each.
template <typename T>
__global__ void __launch_bounds__(kThreads) gates_and_styles(const __grid_constant__ TableArguments<T> args) {
  const int64_t block = blockIdx.x;
  if (block < args.gate_blocks) {
    make_gate<T>(args.tables, args.logits_h, args.logits_w, block * kWarps + threadIdx.x / kWarp);
  } else {
    make_styles(args, (block - args.gate_blocks) * kThreads + threadIdx.x);
  }
}

// A thread takes a pixel, and its codes from the last to the first.
template <typename T>
__global__ void __launch_bounds__(kThreads) blend_weights(const __grid_constant__ TableArguments<T> args) {
  using A = accumulator_t<T>;
  const Tables<T>& tables = args.tables;
  const int64_t rows = tables.samples * tables.pixel_rows, index = global_thread();
  if (index >= rows) return;
  const int64_t sample = index / tables.pixel_rows;
  const int pixel = static_cast<int>(index % tables.pixel_rows);
  const bool exists = pixel < tables.pixels;
  const int row = pixel / tables.width, column = pixel % tables.width;
  const A inverse = A(1) / tables.rects;
  A keep = exists ? 1 : 0;
  for (int group = tables.groups - 1; group >= 0; --group) {
    A weights[kGroup];
#pragma unroll
    for (int i = kGroup - 1; i >= 0; --i) {
      const int code = group * kGroup + i;
      weights[i] = 0;
      if (exists && code < tables.codes) {
        const A factor = args.gain == nullptr ? inverse : load(args.gain + code) * inverse;
        const A mask = factor * rectangles_at(tables, sample, code, row, column);
        if (tables.masks != nullptr) store(tables.masks + (sample * tables.codes + code) * tables.pixels + pixel, mask);
        weights[i] = mask * keep;
        keep *= 1 - mask;
      }
    }
    store_row<T>(tables.weights + 4 * (group * rows + sample * tables.pixel_rows) + pixel, tables.pixel_rows, weights);
  }
  store(tables.keep + index, keep);
}

}  // namespace

template <typename T>
const char* make_tables(const Shape& shape, const Group& group, const Tables<T>& tables, void* stream) {
  using A = accumulator_t<T>;
  const auto numbers = [](const void* pointer) { return static_cast<const A*>(pointer); };
  const int64_t gate_blocks = ceil_divide(2 * shape.n * shape.k * shape.j, kWarps);
  const TableArguments<T> args{numbers(group.gate_logits_h), numbers(group.gate_logits_w), numbers(group.scale),
                               numbers(group.bias),          numbers(group.mean),          numbers(group.rstd),
                               numbers(group.mask_gain),     tables,                       gate_blocks};
  const int64_t style_rows = tables.groups * shape.n * tables.channel_rows;
  const char* error =
      launch(gates_and_styles<T>, gate_blocks + ceil_divide(style_rows, kThreads), 0, stream, args);
  return error != nullptr ? error : launch_each(blend_weights<T>, shape.n * tables.pixel_rows, stream, args);
}

template const char* make_tables(const Shape&, const Group&, const Tables<float>&, void*);
template const char* make_tables(const Shape&, const Group&, const Tables<double>&, void*);
template const char* make_tables(const Shape&, const Group&, const Tables<Half>&, void*);
template const char* make_tables(const Shape&, const Group&, const Tables<Bfloat16>&, void*);

}  // namespace sc_layers
