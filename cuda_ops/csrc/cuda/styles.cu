// scale_k = 1 + code_k * style_weight[k, 0] + style_bias[k, 0],  bias_k = code_k * style_weight[k, 1] + style_bias[k,
// 1]
#include "device.cuh"

namespace sc_layers {
namespace {

template <typename A>
struct StyleArguments {
  const A* codes;
  const A* weight;
  const A* offset;
  A* scale;
  A* bias;
  int num_codes, channels, blocks;  // blocks of a sample
};

// A thread takes one number of both.
template <typename A>
__global__ void __launch_bounds__(kThreads) styles(const __grid_constant__ StyleArguments<A> args) {
  const Work work(args.blocks);
  const int row = work.index / args.channels, channel = work.index - row * args.channels;
  if (row >= args.num_codes) return;
  const A code = load(args.codes + work.sample * args.num_codes + row);
  const int64_t at = 2 * row * args.channels + channel;
  const int64_t index = static_cast<int64_t>(work.sample) * args.num_codes * args.channels + work.index;
  store(args.scale + index, 1 + (code * load(args.weight + at) + load(args.offset + at)));
  store(args.bias + index, code * load(args.weight + at + args.channels) + load(args.offset + at + args.channels));
}

template <typename A>
struct StyleGradientArguments {
  const A* codes;
  const A* weight;
  const A* grad_scale;
  const A* grad_bias;
  A* grad_codes;
  A* grad_weight;
  A* grad_offset;
  int64_t samples, num_codes, channels, parameter_blocks;
};

// The first blocks sum over samples, a thread for each number of the parameters; the others over channels, a warp for
// each code of a sample.
template <typename A>
__global__ void __launch_bounds__(kThreads) style_gradients(const __grid_constant__ StyleGradientArguments<A> args) {
  const int64_t block = blockIdx.x, stride = args.num_codes * args.channels;
  if (block < args.parameter_blocks) {
    const int64_t index = block * kThreads + threadIdx.x, code = index / (2 * args.channels);
    if (code >= args.num_codes) return;
    const bool is_bias = index / args.channels % 2 != 0;
    const A* grads = (is_bias ? args.grad_bias : args.grad_scale) + code * args.channels + index % args.channels;
    A weight = 0, offset = 0;
    for (int64_t sample = 0; sample < args.samples; ++sample) {
      const A grad = load(grads + sample * stride);
      weight += grad * load(args.codes + sample * args.num_codes + code);
      offset += grad;
    }
    if (args.grad_weight != nullptr) store(args.grad_weight + index, weight);
    if (args.grad_offset != nullptr) store(args.grad_offset + index, offset);
  } else {
    const int64_t row = (block - args.parameter_blocks) * kWarps + threadIdx.x / kWarp;
    if (row >= args.samples * args.num_codes) return;
    const A* weight = args.weight + 2 * (row % args.num_codes) * args.channels;
    A sum = 0;
    for (int64_t i = threadIdx.x % kWarp; i < args.channels; i += kWarp) {
      sum += load(args.grad_scale + row * args.channels + i) * load(weight + i) +
             load(args.grad_bias + row * args.channels + i) * load(weight + args.channels + i);
    }
    sum = team_sum(sum);
    if (threadIdx.x % kWarp == 0) store(args.grad_codes + row, sum);
  }
}

template <typename A>
const char* styles_of(const Styles& call, void* stream) {
  const Shape& s = call.shape;
  const StyleArguments<A> args{numbers<A>(call.codes),
                               numbers<A>(call.style_weight),
                               numbers<A>(call.style_bias),
                               results<A>(call.scale),
                               results<A>(call.bias),
                               narrow(s.k),
                               narrow(s.c),
                               blocks_for(s.k * s.c)};
  return launch(styles<A>, s.n * args.blocks, 0, stream, args);
}

template <typename A>
const char* styles_backward_of(const StylesBackward& call, void* stream) {
  const Shape& s = call.shape;
  const bool parameters = call.grad_style_weight != nullptr || call.grad_style_bias != nullptr;
  const int64_t parameter_blocks = parameters ? ceil_divide(2 * s.k * s.c, kThreads) : 0;
  const int64_t code_blocks = call.grad_codes != nullptr ? ceil_divide(s.n * s.k, kWarps) : 0;
  const StyleGradientArguments<A> args{numbers<A>(call.codes),
                                       numbers<A>(call.style_weight),
                                       numbers<A>(call.grad_scale),
                                       numbers<A>(call.grad_bias),
                                       results<A>(call.grad_codes),
                                       results<A>(call.grad_style_weight),
                                       results<A>(call.grad_style_bias),
                                       s.n,
                                       s.k,
                                       s.c,
                                       parameter_blocks};
  if (parameter_blocks + code_blocks == 0) return nullptr;
  return launch(style_gradients<A>, parameter_blocks + code_blocks, 0, stream, args);
}

}  // namespace

const char* launch_styles(const Styles& call, const Device&, void* stream) {
  return call.shape.scalar == Scalar::f64 ? styles_of<double>(call, stream) : styles_of<float>(call, stream);
}

const char* launch_styles_backward(const StylesBackward& call, const Device&, void* stream) {
  return call.shape.scalar == Scalar::f64 ? styles_backward_of<double>(call, stream)
                                          : styles_backward_of<float>(call, stream);
}

}  // namespace sc_layers
