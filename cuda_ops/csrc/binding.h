// The operators for one backend: checks of the arguments, memory, and the order of the steps.
//
// A backend is made for one call, Backend(device_index), and has
//   size_t statistics_workspace(const Shape&), apply_workspace, backward_workspace    bytes of scratch memory
//   int64_t samples_at_once(const Shape&, int64_t sample_bytes)    how many samples to take through the steps together
//   void run(const Statistics&), and so on for every step of constrict.h
//   AOTITorchError multiply(out, left, right, double beta, double alpha)    out = beta out + alpha left right
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>

#include "tensors.h"

namespace sc_layers {

using OptionalTensor = std::optional<Tensor>;

// ---------------------------------------------------------------- the steps, for as many samples as the caches hold

// What decides what happens at each pixel and channel.
struct GroupMemory {
  PerSample mean, rstd, logits_h, logits_w, scale, bias;
  const void* mask_gain;

  Group operator[](int64_t sample) const {
    return {mean[sample], rstd[sample], logits_h[sample], logits_w[sample], scale[sample], bias[sample], mask_gain};
  }
};

struct ForwardMemory {
  GroupMemory group;
  PerSample x, y;
  void* workspace;
};

struct BackwardMemory {
  GroupMemory group;
  PerSample grad, x, added_logits_h, added_logits_w;
  PerSample grad_logits_h, grad_logits_w, grad_scale, grad_bias, grad_gain;  // results of the sums
  PerSample grad_mean, grad_x;                                               // no grad_x: not wanted
  void* workspace;
};

inline Shape with_samples(Shape shape, int64_t samples) {
  shape.n = samples;
  return shape;
}

template <typename Body>
void in_chunks(const Shape& shape, int64_t chunk, const Body& body) {
  for (int64_t first = 0; first < shape.n; first += chunk) {
    body(with_samples(shape, std::min(chunk, shape.n - first)), first);
  }
}

// Calls prepare(part, first), which may find statistics and logits, before the samples first .. first + part.n.
template <typename Backend, typename Prepare>
void run_forward(const Backend& backend, const Shape& shape, int64_t chunk, const ForwardMemory& memory,
                 const Prepare& prepare) {
  in_chunks(shape, chunk, [&](const Shape& part, int64_t first) {
    prepare(part, first);
    backend.run(Apply{part, memory.group[first], memory.x[first], memory.y[first], memory.workspace});
  });
}

// Calls between(part, first), which may fill grad_mean, between the two halves.
template <typename Backend, typename Between>
void run_backward(const Backend& backend, const Shape& shape, int64_t chunk, const BackwardMemory& m,
                  const Between& between) {
  in_chunks(shape, chunk, [&](const Shape& part, int64_t first) {
    const Group group = m.group[first];
    backend.run(BackwardSums{part, group, m.grad[first], m.x[first], m.added_logits_h[first], m.added_logits_w[first],
                             m.grad_logits_h[first], m.grad_logits_w[first], m.grad_scale[first], m.grad_bias[first],
                             m.grad_gain[first], m.workspace});
    if (m.grad_x[first] == nullptr) return;
    between(part, first);
    backend.run(BackwardInput{part, group, m.grad[first], m.x[first], m.grad_scale[first], m.grad_bias[first],
                              m.grad_mean[first], m.grad_x[first], m.workspace});
  });
}

// Bytes of one sample of a tensor like x, and of tensors of the type that x is computed in.
struct SampleBytes {
  int64_t features, number, plane, codes, styles, logits_h, logits_w;

  SampleBytes(const Features& x, const Shape& s)
      : features(s.c * s.h * s.w * bytes_of(x.type)),
        number(bytes_of(x.computed)),
        plane(s.c * number),
        codes(s.k * number),
        styles(s.k * plane),
        logits_h(s.k * s.j * 2 * s.h * number),
        logits_w(s.k * s.j * 2 * s.w * number) {}
};

template <typename Backend>
int64_t forward_chunk(const Backend& backend, const Shape& shape, const SampleBytes& bytes) {
  const auto scratch = static_cast<int64_t>(backend.apply_workspace(with_samples(shape, 1)));
  return std::min(shape.n, backend.samples_at_once(shape, 2 * bytes.features + scratch));
}

template <typename Backend>
int64_t backward_chunk(const Backend& backend, const Shape& shape, const SampleBytes& bytes) {
  const auto scratch = static_cast<int64_t>(backend.backward_workspace(with_samples(shape, 1)));
  return std::min(shape.n, backend.samples_at_once(shape, 2 * bytes.features + scratch));
}

// ---------------------------------------------------------------- statistics

template <typename Backend>
std::tuple<Tensor, Tensor> statistics(const Tensor& features, double eps) {
  const Features x(features);
  const Shape& s = x.shape;
  Tensor mean = empty(x, {s.n, s.c}), rstd = empty(x, {s.n, s.c});
  if (s.n == 0) return {mean, rstd};
  const Backend backend(features.get_device_index());
  Workspace memory(x);
  const int64_t scratch = memory.take_bytes(backend.statistics_workspace(s));
  memory.allocate();
  backend.run(Statistics{s, x.tensor.const_data_ptr(), eps, mean.mutable_data_ptr(), rstd.mutable_data_ptr(),
                         memory.at(scratch)});
  return {mean, rstd};
}

// ---------------------------------------------------------------- constriction under given logits and styles

struct ConstrictInputs {
  Features x;
  Shape shape;
  Tensor mean, rstd, logits_h, logits_w, scale, bias;
  OptionalTensor mask_gain;

  ConstrictInputs(const Tensor& features, const Tensor& logits_h_, const Tensor& logits_w_, const Tensor& scale_,
                  const Tensor& bias_, const OptionalTensor& gain, const Tensor& mean_, const Tensor& rstd_)
      : x(features), shape(x.shape) {
    if (logits_h_.dim() != 5) fail("gate_logits_h must be [N, K, J, 2, H], got ", text_of(logits_h_));
    shape.k = logits_h_.size(1);
    shape.j = logits_h_.size(2);
    if (shape.k < 1 || shape.j < 1) fail("only the batch may be empty, got gate_logits_h ", text_of(logits_h_));
    const Shape& s = shape;
    mean = checked(mean_, "mean", x, {s.n, s.c});
    rstd = checked(rstd_, "rstd", x, {s.n, s.c});
    logits_h = checked(logits_h_, "gate_logits_h", x, {s.n, s.k, s.j, 2, s.h});
    logits_w = checked(logits_w_, "gate_logits_w", x, {s.n, s.k, s.j, 2, s.w});
    scale = checked(scale_, "scale", x, {s.n, s.k, s.c});
    bias = checked(bias_, "bias", x, {s.n, s.k, s.c});
    if (gain) mask_gain = checked(*gain, "mask_gain", x, {s.k});
  }

  GroupMemory group(const SampleBytes& bytes) const {
    return {{mean, bytes.plane},   {rstd, bytes.plane},  {logits_h, bytes.logits_h}, {logits_w, bytes.logits_w},
            {scale, bytes.styles}, {bias, bytes.styles}, data_of(mask_gain)};
  }
};

// eps is there for the derivatives: the statistics have it in them.
template <typename Backend>
Tensor constrict(const Tensor& features, const Tensor& logits_h, const Tensor& logits_w, const Tensor& scale,
                 const Tensor& bias, const OptionalTensor& mask_gain, const Tensor& mean, const Tensor& rstd,
                 double /*eps*/) {
  const ConstrictInputs in(features, logits_h, logits_w, scale, bias, mask_gain, mean, rstd);
  const Shape& s = in.shape;
  Tensor y = empty_like(in.x);
  if (s.n == 0) return y;
  const Backend backend(features.get_device_index());
  const SampleBytes bytes(in.x, s);
  const int64_t chunk = forward_chunk(backend, s, bytes);
  Workspace memory(in.x);
  const int64_t scratch = memory.take_bytes(backend.apply_workspace(with_samples(s, chunk)));
  memory.allocate();
  run_forward(backend, s, chunk,
              {in.group(bytes), {in.x.tensor, bytes.features}, {y, bytes.features}, memory.at(scratch)},
              [](const Shape&, int64_t) {});
  return y;
}

// Gradients of x (of no elements if not wanted), the logits, scale, bias and mask_gain (of no elements if absent).
template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> constrict_backward(
    const Tensor& grad, const Tensor& features, const Tensor& logits_h, const Tensor& logits_w, const Tensor& scale,
    const Tensor& bias, const OptionalTensor& mask_gain, const Tensor& mean, const Tensor& rstd, bool wants_x) {
  const ConstrictInputs in(features, logits_h, logits_w, scale, bias, mask_gain, mean, rstd);
  const Shape& s = in.shape;
  const Tensor grad_y = in.x.like(grad, "the gradient");
  Tensor grad_x = wants_x ? empty_like(in.x) : empty(in.x, {0});
  Tensor grad_logits_h = empty(in.x, {s.n, s.k, s.j, 2, s.h}), grad_logits_w = empty(in.x, {s.n, s.k, s.j, 2, s.w});
  Tensor grad_scale = empty(in.x, {s.n, s.k, s.c}), grad_bias = empty(in.x, {s.n, s.k, s.c});
  Tensor grad_gain = empty(in.x, {mask_gain ? s.n : 0, s.k});
  if (s.n > 0) {
    const Backend backend(features.get_device_index());
    const SampleBytes bytes(in.x, s);
    const int64_t chunk = backward_chunk(backend, s, bytes);
    Workspace memory(in.x);
    const int64_t scratch = memory.take_bytes(backend.backward_workspace(with_samples(s, chunk)));
    memory.allocate();
    BackwardMemory m{in.group(bytes), {grad_y, bytes.features}, {in.x.tensor, bytes.features}};
    m.grad_logits_h = {grad_logits_h, bytes.logits_h};
    m.grad_logits_w = {grad_logits_w, bytes.logits_w};
    m.grad_scale = {grad_scale, bytes.styles};
    m.grad_bias = {grad_bias, bytes.styles};
    if (mask_gain) m.grad_gain = {grad_gain, bytes.codes};
    if (wants_x) m.grad_x = {grad_x, bytes.features};
    m.workspace = memory.at(scratch);
    run_backward(backend, s, chunk, m, [](const Shape&, int64_t) {});
  }
  return {grad_x,     grad_logits_h, grad_logits_w,
          grad_scale, grad_bias,     mask_gain ? sum_of_samples(grad_gain) : empty(in.x, {0})};
}

// ---------------------------------------------------------------- the whole layer

struct LayerInputs {
  Features x;
  Shape shape;
  Tensor codes, gate_weight_h, gate_weight_w, style_weight, style_bias;
  OptionalTensor mask_gain;
  int64_t rows_h, rows_w;  // logits of a sample, along h and along w
  double pooled_scale;     // of the mean in the projection (Eq. 1)

  LayerInputs(const Tensor& features, const Tensor& codes_, const Tensor& weight_h, const Tensor& weight_w,
              const Tensor& style_weight_, const Tensor& style_bias_, const OptionalTensor& gain)
      : x(features), shape(x.shape) {
    if (weight_h.dim() != 5) fail("gate_weight_h must be [K, J, 2, H, C], got ", text_of(weight_h));
    shape.k = weight_h.size(0);
    shape.j = weight_h.size(1);
    if (shape.k < 1 || shape.j < 1) fail("only the batch may be empty, got gate_weight_h ", text_of(weight_h));
    const Shape& s = shape;
    codes = checked(codes_, "codes", x, {s.n, s.k});
    gate_weight_h = checked(weight_h, "gate_weight_h", x, {s.k, s.j, 2, s.h, s.c});
    gate_weight_w = checked(weight_w, "gate_weight_w", x, {s.k, s.j, 2, s.w, s.c});
    style_weight = checked(style_weight_, "style_weight", x, {s.k, 2, s.c});
    style_bias = checked(style_bias_, "style_bias", x, {s.k, 2, s.c});
    if (gain) mask_gain = checked(*gain, "mask_gain", x, {s.k});
    rows_h = s.k * s.j * 2 * s.h;
    rows_w = s.k * s.j * 2 * s.w;
    pooled_scale = 1 / std::sqrt(static_cast<double>(s.c));
  }
};

template <typename Backend>
void multiply(const Backend& backend, const Tensor& out, const Tensor& left, const Tensor& right, double beta,
              double alpha) {
  check(backend.multiply(out.get(), left.get(), right.get(), beta, alpha), "a product of ", text_of(left), " and ",
        text_of(right));
}

// y, mean, rstd and the gate logits.
template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> constrict_layer(const Tensor& features, const Tensor& codes,
                                                                   const Tensor& gate_weight_h,
                                                                   const Tensor& gate_weight_w,
                                                                   const Tensor& style_weight, const Tensor& style_bias,
                                                                   const OptionalTensor& mask_gain, double eps) {
  const LayerInputs in(features, codes, gate_weight_h, gate_weight_w, style_weight, style_bias, mask_gain);
  const Shape& s = in.shape;
  Tensor y = empty_like(in.x), mean = empty(in.x, {s.n, s.c}), rstd = empty(in.x, {s.n, s.c});
  Tensor logits_h = empty(in.x, {s.n, s.k, s.j, 2, s.h}), logits_w = empty(in.x, {s.n, s.k, s.j, 2, s.w});
  if (s.n == 0) return {y, mean, rstd, logits_h, logits_w};
  const Backend backend(features.get_device_index());
  const SampleBytes bytes(in.x, s);
  const int64_t chunk = forward_chunk(backend, s, bytes);
  const Shape part_shape = with_samples(s, chunk);
  Workspace memory(in.x);
  const int64_t scale = memory.take(s.n * s.k * s.c), bias = memory.take(s.n * s.k * s.c);
  const int64_t scratch =
      memory.take_bytes(std::max(backend.statistics_workspace(part_shape), backend.apply_workspace(part_shape)));
  memory.allocate();
  backend.run(Styles{s, in.codes.const_data_ptr(), in.style_weight.const_data_ptr(), in.style_bias.const_data_ptr(),
                     memory.at(scale), memory.at(bias)});
  const ForwardMemory m{{{mean, bytes.plane},
                         {rstd, bytes.plane},
                         {logits_h, bytes.logits_h},
                         {logits_w, bytes.logits_w},
                         {memory.at(scale), bytes.styles},
                         {memory.at(bias), bytes.styles},
                         data_of(in.mask_gain)},
                        {in.x.tensor, bytes.features},
                        {y, bytes.features},
                        memory.at(scratch)};
  const Tensor weight_h = matrix(in.gate_weight_h, 0, in.rows_h, s.c, true);
  const Tensor weight_w = matrix(in.gate_weight_w, 0, in.rows_w, s.c, true);
  run_forward(backend, s, chunk, m, [&](const Shape& part, int64_t first) {
    const PerSample means = m.group.mean, rstds = m.group.rstd;
    backend.run(Statistics{part, m.x[first], eps, means[first], rstds[first], m.workspace});
    const Tensor pooled = matrix(mean, first * s.c, part.n, s.c);
    multiply(backend, matrix(logits_h, first * in.rows_h, part.n, in.rows_h), pooled, weight_h, 0, in.pooled_scale);
    multiply(backend, matrix(logits_w, first * in.rows_w, part.n, in.rows_w), pooled, weight_w, 0, in.pooled_scale);
  });
  return {y, mean, rstd, logits_h, logits_w};
}

// Bits of `wanted`: the inputs of the layer in their order.
enum : int64_t {
  kX = 1,
  kCodes = 2,
  kGateWeightH = 4,
  kGateWeightW = 8,
  kStyleWeight = 16,
  kStyleBias = 32,
  kGain = 64
};

// Gradients of the inputs of the layer; those that are not wanted have no elements.
template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> constrict_layer_backward(
    const Tensor& grad, const OptionalTensor& added_logits_h, const OptionalTensor& added_logits_w,
    const Tensor& features, const Tensor& codes, const Tensor& gate_weight_h, const Tensor& gate_weight_w,
    const Tensor& style_weight, const Tensor& style_bias, const OptionalTensor& mask_gain, const Tensor& mean_,
    const Tensor& rstd_, const Tensor& logits_h_, const Tensor& logits_w_, int64_t wanted) {
  const LayerInputs in(features, codes, gate_weight_h, gate_weight_w, style_weight, style_bias, mask_gain);
  const Features& x = in.x;
  const Shape& s = in.shape;
  const Tensor grad_y = x.like(grad, "the gradient");
  const Tensor mean = checked(mean_, "mean", x, {s.n, s.c}), rstd = checked(rstd_, "rstd", x, {s.n, s.c});
  auto logits = [&](const Tensor& tensor, const char* name, int64_t size) {
    return checked(tensor, name, x, {s.n, s.k, s.j, 2, size});
  };
  const Tensor logits_h = logits(logits_h_, "gate_logits_h", s.h), logits_w = logits(logits_w_, "gate_logits_w", s.w);
  OptionalTensor added_h, added_w;
  if (added_logits_h) added_h = logits(*added_logits_h, "the gradient of gate_logits_h", s.h);
  if (added_logits_w) added_w = logits(*added_logits_w, "the gradient of gate_logits_w", s.w);

  auto result = [&](int64_t bit, std::initializer_list<int64_t> sizes) {
    return wanted & bit ? empty(x, sizes) : empty(x, {0});
  };
  Tensor grad_x = wanted & kX ? empty_like(x) : empty(x, {0});
  Tensor grad_codes = result(kCodes, {s.n, s.k});
  Tensor grad_weight_h = result(kGateWeightH, {s.k, s.j, 2, s.h, s.c});
  Tensor grad_weight_w = result(kGateWeightW, {s.k, s.j, 2, s.w, s.c});
  Tensor grad_style_weight = result(kStyleWeight, {s.k, 2, s.c});
  Tensor grad_style_bias = result(kStyleBias, {s.k, 2, s.c});
  Tensor grad_gain = empty(x, {mask_gain ? s.n : 0, s.k});
  if (s.n == 0) {
    for (Tensor* tensor : {&grad_weight_h, &grad_weight_w, &grad_style_weight, &grad_style_bias}) {
      torch::stable::zero_(*tensor);
    }
  } else {
    const Backend backend(features.get_device_index());
    const SampleBytes bytes(x, s);
    const int64_t chunk = backward_chunk(backend, s, bytes);
    const int64_t styles_size = s.n * s.k * s.c;
    Workspace memory(x);
    const int64_t scale = memory.take(styles_size), bias = memory.take(styles_size);
    const int64_t grad_scale = memory.take(styles_size), grad_bias = memory.take(styles_size);
    const int64_t grad_h = memory.take(s.n * in.rows_h), grad_w = memory.take(s.n * in.rows_w);
    const int64_t grad_mean = memory.take(s.n * s.c);
    const int64_t scratch = memory.take_bytes(backend.backward_workspace(with_samples(s, chunk)));
    memory.allocate();
    backend.run(Styles{s, in.codes.const_data_ptr(), in.style_weight.const_data_ptr(), in.style_bias.const_data_ptr(),
                       memory.at(scale), memory.at(bias)});
    BackwardMemory m{{{mean, bytes.plane},
                      {rstd, bytes.plane},
                      {logits_h, bytes.logits_h},
                      {logits_w, bytes.logits_w},
                      {memory.at(scale), bytes.styles},
                      {memory.at(bias), bytes.styles},
                      data_of(in.mask_gain)},
                     {grad_y, bytes.features},
                     {x.tensor, bytes.features}};
    if (added_h) m.added_logits_h = {*added_h, bytes.logits_h};
    if (added_w) m.added_logits_w = {*added_w, bytes.logits_w};
    m.grad_logits_h = {memory.at(grad_h), bytes.logits_h};
    m.grad_logits_w = {memory.at(grad_w), bytes.logits_w};
    m.grad_scale = {memory.at(grad_scale), bytes.styles};
    m.grad_bias = {memory.at(grad_bias), bytes.styles};
    if (mask_gain) m.grad_gain = {grad_gain, bytes.codes};
    m.grad_mean = {memory.at(grad_mean), bytes.plane};
    if (wanted & kX) m.grad_x = {grad_x, bytes.features};
    m.workspace = memory.at(scratch);
    const Tensor weight_h = matrix(in.gate_weight_h, 0, in.rows_h, s.c);
    const Tensor weight_w = matrix(in.gate_weight_w, 0, in.rows_w, s.c);
    run_backward(backend, s, chunk, m, [&](const Shape& part, int64_t first) {
      const Tensor to = matrix(memory.tensor(), grad_mean + first * s.c, part.n, s.c);
      auto from = [&](int64_t at, int64_t rows) { return matrix(memory.tensor(), at + first * rows, part.n, rows); };
      multiply(backend, to, from(grad_h, in.rows_h), weight_h, 0, in.pooled_scale);
      multiply(backend, to, from(grad_w, in.rows_w), weight_w, 1, in.pooled_scale);
    });
    auto pointer = [&](int64_t bit, const Tensor& tensor) {
      return wanted & bit ? tensor.mutable_data_ptr() : nullptr;
    };
    if (wanted & (kCodes | kStyleWeight | kStyleBias)) {
      backend.run(StylesBackward{s, in.codes.const_data_ptr(), in.style_weight.const_data_ptr(), memory.at(grad_scale),
                                 memory.at(grad_bias), pointer(kCodes, grad_codes),
                                 pointer(kStyleWeight, grad_style_weight), pointer(kStyleBias, grad_style_bias)});
    }
    const Tensor pooled = matrix(mean, 0, s.n, s.c);
    auto project = [&](int64_t bit, const Tensor& out, int64_t at, int64_t rows) {
      if (!(wanted & bit)) return;
      multiply(backend, matrix(out, 0, rows, s.c), matrix(memory.tensor(), at, s.n, rows, true), pooled, 0,
               in.pooled_scale);
    };
    project(kGateWeightH, grad_weight_h, grad_h, in.rows_h);
    project(kGateWeightW, grad_weight_w, grad_w, in.rows_w);
  }
  return {grad_x,
          grad_codes,
          grad_weight_h,
          grad_weight_w,
          grad_style_weight,
          grad_style_bias,
          mask_gain && (wanted & kGain) ? sum_of_samples(grad_gain) : empty(x, {0})};
}

#define SC_LAYERS_OPERATORS(library, Backend)                                                \
  library.impl("statistics", SC_LAYERS_BOX(sc_layers::statistics<Backend>));                 \
  library.impl("constrict", SC_LAYERS_BOX(sc_layers::constrict<Backend>));                   \
  library.impl("constrict_backward", SC_LAYERS_BOX(sc_layers::constrict_backward<Backend>)); \
  library.impl("constrict_layer", SC_LAYERS_BOX(sc_layers::constrict_layer<Backend>));       \
  library.impl("constrict_layer_backward", SC_LAYERS_BOX(sc_layers::constrict_layer_backward<Backend>))

}  // namespace sc_layers
