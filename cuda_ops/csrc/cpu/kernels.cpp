// The steps of the layer on the CPU.
//
// Compiled once per instruction set (SC_LAYERS_ISA names the namespace), without exceptions: nothing here may throw,
// since PyTorch runs the loops' bodies on its own threads. Every step is a few loops whose iterations write to places
// of their own:
//
//   apply           gates and packed styles -> blend weights of every pixel -> y
//   backward_sums   gates and packed styles -> blend weights, sums over channels, gradient of the masks
//                   -> sums over pixels (gradients of the styles), gradients of the logits
//   backward_input  what is the same for a plane -> gradient of x
//
// A sum is always split at the same places, so the result does not depend on the number of threads.
#include "kernels.h"

#include "gates.h"
#include "planes.h"
#include "rows.h"
#include "statistics.h"

namespace sc_layers::SC_LAYERS_ISA {
namespace {

// Calls step with a value of the features' type and one of the type that they are computed in.
template <typename Step>
auto with_types(Scalar scalar, const Step& step) {
  switch (scalar) {
    case Scalar::f64:
      return step(double{}, double{});
    case Scalar::f32:
      return step(float{}, float{});
    case Scalar::f16:
      return step(f16{}, float{});
    case Scalar::bf16:
      return step(bf16{}, float{});
  }
  __builtin_unreachable();
}

// ---------------------------------------------------------------- statistics

template <typename T, typename A>
void statistics_of_planes(const Sizes& s, const Statistics& args, Parallel parallel) {
  for_tasks(parallel, s.n, s.groups, [&](int64_t sample, int64_t group) {
    const int64_t end = min_of(s.c, (group + 1) * s.group);
    for (int64_t c = group * s.group; c < end; ++c) {
      const int64_t plane = sample * s.c + c;
      A squares;
      plane_statistics(static_cast<const T*>(args.x) + plane * s.pixels, s.pixels, static_cast<A*>(args.mean)[plane],
                       squares);
      static_cast<A*>(args.rstd)[plane] = rstd_of(squares, s.pixels, args.eps);
    }
  });
}

template <typename T, typename A>
void statistics_of_rows(const Sizes& s, const Statistics& args, Parallel parallel) {
  A* partial = static_cast<A*>(args.workspace);
  const int64_t sample_size = s.pixels * s.c;
  for_tasks(parallel, s.n, s.strips, [&](int64_t sample, int64_t strip) {
    const T* x = static_cast<const T*>(args.x) + sample * sample_size;
    A* mean = partial + (sample * s.strips + strip) * 2 * s.channels;
    strip_statistics(s, x, x + strip * s.strip * s.c, s.pixels_of(strip), mean, mean + s.channels);
  });
  for_tasks(parallel, s.n, s.channel_blocks, [&](int64_t sample, int64_t block) {
    merge_statistics<T, A>(s, static_cast<const T*>(args.x) + sample * sample_size,
                           partial + sample * s.strips * 2 * s.channels, args.eps, block,
                           static_cast<A*>(args.mean) + sample * s.c, static_cast<A*>(args.rstd) + sample * s.c);
  });
}

void statistics(const Statistics& args, Parallel parallel) {
  with_types(args.shape.scalar, [&](auto feature, auto computed) {
    using T = decltype(feature);
    using A = decltype(computed);
    const auto run = args.shape.channels_last ? statistics_of_rows<T, A> : statistics_of_planes<T, A>;
    run(Sizes(args.shape, sizeof(T)), args, parallel);
  });
}

size_t statistics_workspace(const Shape& shape) {
  return with_types(shape.scalar, [&](auto feature, auto computed) -> size_t {
    const Sizes s(shape, sizeof feature);
    return shape.channels_last ? static_cast<size_t>(s.n * s.strips * 2 * s.channels) * sizeof computed : 0;
  });
}

// ---------------------------------------------------------------- styles

// Iterations of a loop with `work` numbers each that are worth a thread.
int64_t grain_of(int64_t work) { return ceil_div(1 << 14, work); }

void styles(const Styles& args, Parallel parallel) {
  with_types(args.shape.scalar, [&](auto, auto computed) {
    using A = decltype(computed);
    const int64_t k = args.shape.k, c = args.shape.c;
    for_each(parallel, args.shape.n * k, grain_of(c), [&](int64_t row) {
      const A code = static_cast<const A*>(args.codes)[row];
      const A* weight = static_cast<const A*>(args.style_weight) + row % k * 2 * c;
      const A* bias = static_cast<const A*>(args.style_bias) + row % k * 2 * c;
      A* to_scale = static_cast<A*>(args.scale) + row * c;
      A* to_bias = static_cast<A*>(args.bias) + row * c;
      for (int64_t i = 0; i < c; ++i) {
        to_scale[i] = code * weight[i] + bias[i] + 1;
        to_bias[i] = code * weight[c + i] + bias[c + i];
      }
    });
  });
}

template <typename A>
void style_parameters_backward(const StylesBackward& args, const A* grad, int64_t code, int64_t which) {
  const int64_t k = args.shape.k, c = args.shape.c, to = (2 * code + which) * c;
  A* grad_weight = args.grad_style_weight == nullptr ? nullptr : static_cast<A*>(args.grad_style_weight) + to;
  A* grad_bias = args.grad_style_bias == nullptr ? nullptr : static_cast<A*>(args.grad_style_bias) + to;
  for (int64_t i = 0; i < c; ++i) {
    if (grad_weight != nullptr) grad_weight[i] = 0;
    if (grad_bias != nullptr) grad_bias[i] = 0;
  }
  for (int64_t row = code; row < args.shape.n * k; row += k) {
    const A value = static_cast<const A*>(args.codes)[row];
    const A* from = grad + row * c;
    for (int64_t i = 0; i < c && grad_weight != nullptr; ++i) grad_weight[i] += value * from[i];
    for (int64_t i = 0; i < c && grad_bias != nullptr; ++i) grad_bias[i] += from[i];
  }
}

void styles_backward(const StylesBackward& args, Parallel parallel) {
  with_types(args.shape.scalar, [&](auto, auto computed) {
    using A = decltype(computed);
    const int64_t n = args.shape.n, k = args.shape.k, c = args.shape.c;
    const A* grad_scale = static_cast<const A*>(args.grad_scale);
    const A* grad_bias = static_cast<const A*>(args.grad_bias);
    if (args.grad_codes != nullptr) {
      for_each(parallel, n * k, grain_of(c), [&](int64_t row) {
        const A* weight = static_cast<const A*>(args.style_weight) + row % k * 2 * c;
        static_cast<A*>(args.grad_codes)[row] =
            dot(grad_scale + row * c, weight, c) + dot(grad_bias + row * c, weight + c, c);
      });
    }
    if (args.grad_style_weight == nullptr && args.grad_style_bias == nullptr) return;
    for_each(parallel, 2 * k, grain_of(n * c), [&](int64_t task) {
      style_parameters_backward(args, task % 2 == 0 ? grad_scale : grad_bias, task / 2, task % 2);
    });
  });
}

// ---------------------------------------------------------------- apply

// Styles and statistics of one block of channels, padded with zeros.
template <typename A>
void pack_channels(const Sizes& s, const Scratch<A>& scratch, const Group& group, int64_t sample, int64_t block) {
  const int64_t count = min_of(kBlock, s.c - block * kBlock);
  auto pack = [&](const void* tensor, int64_t row, A* to) {
    const A* from = static_cast<const A*>(tensor) + row * s.c + block * kBlock;
    for (int64_t i = 0; i < kBlock; ++i) to[i] = i < count ? from[i] : A(0);
  };
  A* to = scratch.styles + (sample * s.channel_blocks + block) * s.k * 2 * kBlock;
  for (int64_t code = 0; code < s.k; ++code, to += 2 * kBlock) {
    pack(group.scale, sample * s.k + code, to);
    pack(group.bias, sample * s.k + code, to + kBlock);
  }
  const int64_t at = sample * s.channels + block * kBlock;
  pack(group.mean, sample, scratch.mean + at);
  pack(group.rstd, sample, scratch.rstd + at);
}

template <typename A>
void prepare(const Sizes& s, const Scratch<A>& scratch, const Group& group, Parallel parallel) {
  for_tasks(parallel, s.n, s.k + s.channel_blocks, [&](int64_t sample, int64_t task) {
    if (task < s.k) {
      gates_of_code(s, scratch, group, sample, task);
    } else {
      pack_channels(s, scratch, group, sample, task - s.k);
    }
  });
}

void apply(const Apply& args, Parallel parallel) {
  with_types(args.shape.scalar, [&](auto feature, auto computed) {
    using T = decltype(feature);
    using A = decltype(computed);
    const Sizes s(args.shape, sizeof(T));
    const Scratch<A> scratch(s, false, args.workspace);
    prepare(s, scratch, args.group, parallel);
    for_tasks(parallel, s.n, s.strips,
              [&](int64_t sample, int64_t strip) { weights_of_task(s, scratch, sample, strip); });
    const auto run = args.shape.channels_last ? apply_rows<T, A> : apply_planes<T, A>;
    for_tasks(parallel, s.n, args.shape.channels_last ? s.strips : s.groups,
              [&](int64_t sample, int64_t task) { run(s, scratch, args, sample, task); });
  });
}

size_t scratch_bytes(const Shape& shape, bool backward) {
  return with_types(shape.scalar, [&](auto feature, auto computed) {
    return Scratch<decltype(computed)>(Sizes(shape, sizeof feature), backward, nullptr).bytes;
  });
}

size_t apply_workspace(const Shape& shape) { return scratch_bytes(shape, false); }
size_t backward_workspace(const Shape& shape) { return scratch_bytes(shape, true); }

// ---------------------------------------------------------------- backward

// Gradients of the styles of one block of channels: adds up the strips.
template <typename A>
void sum_styles(const Sizes& s, const Scratch<A>& scratch, const BackwardSums& args, int64_t sample, int64_t block) {
  const int64_t per_strip = s.channel_blocks * s.k * 2 * kBlock;
  const int64_t count = min_of(kBlock, s.c - block * kBlock);
  for (int64_t code = 0; code < s.k; ++code) {
    A sums[2 * kBlock] = {};
    const A* from = scratch.grad_styles + sample * s.strips * per_strip + (block * s.k + code) * 2 * kBlock;
    for (int64_t strip = 0; strip < s.strips; ++strip, from += per_strip) {
      for (int64_t i = 0; i < 2 * kBlock; ++i) sums[i] += from[i];
    }
    const int64_t to = (sample * s.k + code) * s.c + block * kBlock;
    for (int64_t i = 0; i < count; ++i) {
      static_cast<A*>(args.grad_scale)[to + i] = sums[i];
      static_cast<A*>(args.grad_bias)[to + i] = sums[kBlock + i];
    }
  }
}

void backward_sums(const BackwardSums& args, Parallel parallel) {
  with_types(args.shape.scalar, [&](auto feature, auto computed) {
    using T = decltype(feature);
    using A = decltype(computed);
    const Sizes s(args.shape, sizeof(T));
    const Scratch<A> scratch(s, true, args.workspace);
    prepare(s, scratch, args.group, parallel);
    const auto reduce = args.shape.channels_last ? reduce_rows_of_strip<T, A> : reduce_planes<T, A>;
    for_tasks(parallel, s.n, s.strips, [&](int64_t sample, int64_t strip) {
      weights_of_task(s, scratch, sample, strip);
      A* grad_weights = strip_weights(s, scratch.grad_weights, sample, strip);
      const int64_t size = ceil_div(s.pixels_of(strip), kBlock) * (s.k + 1) * kBlock;
      for (int64_t i = 0; i < size; ++i) grad_weights[i] = 0;
      reduce(s, scratch, args, sample, strip);
      masks_of_task_backward(s, scratch, sample, strip);
    });
    for_tasks(parallel, s.n, s.k + s.channel_blocks, [&](int64_t sample, int64_t task) {
      if (task < s.k) {
        gates_backward(s, scratch, args, sample, task);
      } else {
        sum_styles(s, scratch, args, sample, task - s.k);
      }
    });
  });
}

// What is the same for all pixels of the planes of a block of channels: mean(u) = sum_k scale_k grad_bias_k / pixels,
// mean(u x_hat) = sum_k scale_k grad_scale_k / pixels, and what comes through the mean.
template <typename A>
void plane_gradients(const Sizes& s, const Scratch<A>& scratch, const BackwardInput& args, int64_t sample,
                     int64_t block) {
  const A* scale = scratch.styles + (sample * s.channel_blocks + block) * s.k * 2 * kBlock;
  const int64_t count = min_of(kBlock, s.c - block * kBlock), at = sample * s.channels + block * kBlock;
  const A share = A(1) / static_cast<A>(s.pixels);
  A mean_u[kBlock] = {}, mean_ux[kBlock] = {};
  for (int64_t code = 0; code < s.k; ++code, scale += 2 * kBlock) {
    const int64_t from = (sample * s.k + code) * s.c + block * kBlock;
    for (int64_t i = 0; i < count; ++i) {
      mean_u[i] += scale[i] * static_cast<const A*>(args.grad_bias)[from + i];
      mean_ux[i] += scale[i] * static_cast<const A*>(args.grad_scale)[from + i];
    }
  }
  const A* grad_mean = static_cast<const A*>(args.grad_mean);
  for (int64_t i = 0; i < kBlock; ++i) {
    scratch.mean_u[at + i] = mean_u[i] * share;
    scratch.mean_ux[at + i] = mean_ux[i] * share;
    const bool added = grad_mean != nullptr && i < count;
    scratch.addend[at + i] = added ? grad_mean[sample * s.c + block * kBlock + i] * share : A(0);
  }
}

void backward_input(const BackwardInput& args, Parallel parallel) {
  with_types(args.shape.scalar, [&](auto feature, auto computed) {
    using T = decltype(feature);
    using A = decltype(computed);
    const Sizes s(args.shape, sizeof(T));
    const Scratch<A> scratch(s, true, args.workspace);
    for_tasks(parallel, s.n, s.channel_blocks,
              [&](int64_t sample, int64_t block) { plane_gradients(s, scratch, args, sample, block); });
    const auto run = args.shape.channels_last ? grad_rows<T, A> : grad_planes<T, A>;
    for_tasks(parallel, s.n, args.shape.channels_last ? s.strips : s.groups,
              [&](int64_t sample, int64_t task) { run(s, scratch, args, sample, task); });
  });
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {statistics_workspace, apply_workspace, backward_workspace, statistics,    styles,
                         styles_backward,      apply,           backward_sums,      backward_input};

}  // namespace sc_layers::SC_LAYERS_ISA
