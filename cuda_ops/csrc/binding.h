// The operators for one backend: checks of the arguments, memory, and the order of the steps.
//
// A backend is made for one call, Backend(device_index), and has
//   size_t statistics_workspace(const Shape&), apply_workspace, backward_workspace    bytes of scratch memory
//   void run(const Statistics&), and so on for every step of constrict.h
//   AOTITorchError multiply(out, left, right, double beta, double alpha)    out = beta out + alpha left right
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>

#include "tensors.h"

namespace sc_layers {

using OptionalTensor = std::optional<Tensor>;

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
  backend.run(Statistics{s, data_of(x.tensor), eps, room_in(mean), room_in(rstd), memory.at(scratch)});
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
    if (logits_h_.dim() != 5) fail("gate_logits_h must be [N, K, J, 2, H], got ", logits_h_);
    shape.k = logits_h_.size(1);
    shape.j = logits_h_.size(2);
    if (shape.k < 1 || shape.j < 1) fail("only the batch may be empty, got gate_logits_h ", logits_h_);
    const Shape& s = shape;
    mean = checked(mean_, "mean", x, {s.n, s.c});
    rstd = checked(rstd_, "rstd", x, {s.n, s.c});
    logits_h = checked(logits_h_, "gate_logits_h", x, {s.n, s.k, s.j, 2, s.h});
    logits_w = checked(logits_w_, "gate_logits_w", x, {s.n, s.k, s.j, 2, s.w});
    scale = checked(scale_, "scale", x, {s.n, s.k, s.c});
    bias = checked(bias_, "bias", x, {s.n, s.k, s.c});
    if (gain) mask_gain = checked(*gain, "mask_gain", x, {s.k});
  }

  Group group() const {
    return {data_of(mean),  data_of(rstd), data_of(logits_h), data_of(logits_w),
            data_of(scale), data_of(bias), data_of(mask_gain)};
  }
};

// eps is there for the derivatives: the statistics have it in them.
template <typename Backend>
Tensor constrict(const Tensor& features, const Tensor& logits_h, const Tensor& logits_w, const Tensor& scale,
                 const Tensor& bias, const OptionalTensor& mask_gain, const Tensor& mean, const Tensor& rstd,
                 double /*eps*/) {
  const ConstrictInputs in(features, logits_h, logits_w, scale, bias, mask_gain, mean, rstd);
  Tensor y = empty_like(in.x);
  if (in.shape.n == 0) return y;
  const Backend backend(features.get_device_index());
  Workspace memory(in.x);
  const int64_t scratch = memory.take_bytes(backend.apply_workspace(in.shape));
  memory.allocate();
  backend.run(Apply{in.shape, in.group(), data_of(in.x.tensor), room_in(y), memory.at(scratch)});
  return y;
}

// Gradients of x (of no elements if not wanted), the logits, scale, bias, and of mask_gain (of no elements if absent)
// the share of every sample.
template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> constrict_backward(
    const Tensor& grad, const Tensor& features, const Tensor& logits_h, const Tensor& logits_w, const Tensor& scale,
    const Tensor& bias, const OptionalTensor& mask_gain, const Tensor& mean, const Tensor& rstd, bool wants_x) {
  const ConstrictInputs in(features, logits_h, logits_w, scale, bias, mask_gain, mean, rstd);
  const Features& x = in.x;
  const Shape& s = in.shape;
  const Tensor grad_y = x.like(grad, "the gradient");
  Tensor grad_x = wants_x ? empty_like(x) : empty(x, {0});
  Tensor grad_logits_h = empty(x, {s.n, s.k, s.j, 2, s.h}), grad_logits_w = empty(x, {s.n, s.k, s.j, 2, s.w});
  Tensor grad_scale = empty(x, {s.n, s.k, s.c}), grad_bias = empty(x, {s.n, s.k, s.c});
  OptionalTensor grad_gain;
  if (mask_gain) grad_gain = empty(x, {s.n, s.k});
  if (s.n > 0) {
    const Backend backend(features.get_device_index());
    Workspace memory(x);
    const int64_t scratch = memory.take_bytes(backend.backward_workspace(s));
    memory.allocate();
    backend.run(BackwardSums{s, in.group(), data_of(grad_y), data_of(x.tensor), nullptr, nullptr,
                             room_in(grad_logits_h), room_in(grad_logits_w), room_in(grad_scale), room_in(grad_bias),
                             room_in(grad_gain), memory.at(scratch)});
    if (wants_x) {
      backend.run(BackwardInput{s, in.group(), data_of(grad_y), data_of(x.tensor), data_of(grad_scale),
                                data_of(grad_bias), nullptr, room_in(grad_x), memory.at(scratch)});
    }
  }
  return {grad_x, grad_logits_h, grad_logits_w, grad_scale, grad_bias, grad_gain ? *grad_gain : empty(x, {0})};
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
    if (weight_h.dim() != 5) fail("gate_weight_h must be [K, J, 2, H, C], got ", weight_h);
    shape.k = weight_h.size(0);
    shape.j = weight_h.size(1);
    if (shape.k < 1 || shape.j < 1) fail("only the batch may be empty, got gate_weight_h ", weight_h);
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

  Styles styles(void* scale, void* bias) const {
    return {shape, data_of(codes), data_of(style_weight), data_of(style_bias), scale, bias};
  }
};

template <typename Backend>
void multiply(const Backend& backend, const Tensor& out, const Tensor& left, const Tensor& right, double beta,
              double alpha) {
  check(backend.multiply(out.get(), left.get(), right.get(), beta, alpha), "a product of ", left, " and ", right);
}

// y, mean, rstd and the gate logits.
template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> constrict_layer(const Tensor& features, const Tensor& codes,
                                                                   const Tensor& gate_weight_h,
                                                                   const Tensor& gate_weight_w,
                                                                   const Tensor& style_weight, const Tensor& style_bias,
                                                                   const OptionalTensor& mask_gain, double eps) {
  const LayerInputs in(features, codes, gate_weight_h, gate_weight_w, style_weight, style_bias, mask_gain);
  const Features& x = in.x;
  const Shape& s = in.shape;
  Tensor y = empty_like(x), mean = empty(x, {s.n, s.c}), rstd = empty(x, {s.n, s.c});
  Tensor logits_h = empty(x, {s.n, s.k, s.j, 2, s.h}), logits_w = empty(x, {s.n, s.k, s.j, 2, s.w});
  if (s.n == 0) return {y, mean, rstd, logits_h, logits_w};
  const Backend backend(features.get_device_index());
  Workspace memory(x);
  const int64_t scale = memory.take(s.n * s.k * s.c), bias = memory.take(s.n * s.k * s.c);
  const int64_t scratch = memory.take_bytes(std::max(backend.statistics_workspace(s), backend.apply_workspace(s)));
  memory.allocate();
  backend.run(Statistics{s, data_of(x.tensor), eps, room_in(mean), room_in(rstd), memory.at(scratch)});
  backend.run(in.styles(memory.at(scale), memory.at(bias)));
  auto project = [&](const Tensor& logits, const Tensor& weight, int64_t rows) {
    multiply(backend, matrix(logits, 0, s.n, rows), mean, matrix(weight, 0, rows, s.c, true), 0, in.pooled_scale);
  };
  project(logits_h, in.gate_weight_h, in.rows_h);
  project(logits_w, in.gate_weight_w, in.rows_w);
  const Group group{data_of(mean),    data_of(rstd),   data_of(logits_h),    data_of(logits_w),
                    memory.at(scale), memory.at(bias), data_of(in.mask_gain)};
  backend.run(Apply{s, group, data_of(x.tensor), room_in(y), memory.at(scratch)});
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

// The gradients of the layer's inputs: those that are not wanted are null, or have no elements.
struct LayerGradients {
  OptionalTensor x, codes, gate_weight_h, gate_weight_w, style_weight, style_bias, gain_of_samples;

  LayerGradients(const LayerInputs& in, int64_t wanted) {
    const Shape& s = in.shape;
    auto make = [&](int64_t bit, std::initializer_list<int64_t> sizes) -> OptionalTensor {
      if (!(wanted & bit)) return std::nullopt;
      return empty(in.x, sizes);
    };
    if (wanted & kX) x = empty_like(in.x);
    codes = make(kCodes, {s.n, s.k});
    gate_weight_h = make(kGateWeightH, {s.k, s.j, 2, s.h, s.c});
    gate_weight_w = make(kGateWeightW, {s.k, s.j, 2, s.w, s.c});
    style_weight = make(kStyleWeight, {s.k, 2, s.c});
    style_bias = make(kStyleBias, {s.k, 2, s.c});
    if (in.mask_gain) gain_of_samples = empty(in.x, {s.n, s.k});  // the kernels find it in any case
  }

  void set_to_zero() {
    for (OptionalTensor* tensor : {&gate_weight_h, &gate_weight_w, &style_weight, &style_bias}) {
      if (*tensor) check(aoti_torch_zero_((**tensor).get()), "filling a gradient with zeros");
    }
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> results(const Features& features,
                                                                             int64_t wanted) const {
    auto result = [&](const OptionalTensor& tensor) { return tensor ? *tensor : empty(features, {0}); };
    const bool wants_gain = gain_of_samples && (wanted & kGain);
    return {result(x),
            result(codes),
            result(gate_weight_h),
            result(gate_weight_w),
            result(style_weight),
            result(style_bias),
            wants_gain ? *gain_of_samples : empty(features, {0})};
  }
};

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
  LayerGradients grads(in, wanted);
  if (s.n == 0) {
    grads.set_to_zero();
    return grads.results(x, wanted);
  }

  const Backend backend(features.get_device_index());
  Workspace memory(x);
  const int64_t styles_size = s.n * s.k * s.c;
  const int64_t scale = memory.take(styles_size), bias = memory.take(styles_size);
  const int64_t grad_scale = memory.take(styles_size), grad_bias = memory.take(styles_size);
  const int64_t grad_h = memory.take(s.n * in.rows_h), grad_w = memory.take(s.n * in.rows_w);
  const int64_t grad_mean = memory.take(s.n * s.c);
  const int64_t scratch = memory.take_bytes(backend.backward_workspace(s));
  memory.allocate();
  backend.run(in.styles(memory.at(scale), memory.at(bias)));
  const Group group{data_of(mean),    data_of(rstd),   data_of(logits_h),    data_of(logits_w),
                    memory.at(scale), memory.at(bias), data_of(in.mask_gain)};
  backend.run(BackwardSums{s, group, data_of(grad_y), data_of(x.tensor), data_of(added_h), data_of(added_w),
                           memory.at(grad_h), memory.at(grad_w), memory.at(grad_scale), memory.at(grad_bias),
                           room_in(grads.gain_of_samples), memory.at(scratch)});
  if (grads.x) {
    auto through_projection = [&](int64_t grad_logits, const Tensor& weight, int64_t rows, double beta) {
      multiply(backend, matrix(memory.tensor(), grad_mean, s.n, s.c), matrix(memory.tensor(), grad_logits, s.n, rows),
               matrix(weight, 0, rows, s.c), beta, in.pooled_scale);
    };
    through_projection(grad_h, in.gate_weight_h, in.rows_h, 0);
    through_projection(grad_w, in.gate_weight_w, in.rows_w, 1);
    backend.run(BackwardInput{s, group, data_of(grad_y), data_of(x.tensor), memory.at(grad_scale), memory.at(grad_bias),
                              memory.at(grad_mean), room_in(grads.x), memory.at(scratch)});
  }
  if (wanted & (kCodes | kStyleWeight | kStyleBias)) {
    backend.run(StylesBackward{s, data_of(in.codes), data_of(in.style_weight), memory.at(grad_scale),
                               memory.at(grad_bias), room_in(grads.codes), room_in(grads.style_weight),
                               room_in(grads.style_bias)});
  }
  auto weight_backward = [&](const OptionalTensor& to, int64_t grad_logits, int64_t rows) {
    if (!to) return;
    multiply(backend, matrix(*to, 0, rows, s.c), matrix(memory.tensor(), grad_logits, s.n, rows, true), mean, 0,
             in.pooled_scale);
  };
  weight_backward(grads.gate_weight_h, grad_h, in.rows_h);
  weight_backward(grads.gate_weight_w, grad_w, in.rows_w);
  return grads.results(x, wanted);
}

#define SC_LAYERS_OPERATORS(library, Backend)                                                \
  library.impl("statistics", SC_LAYERS_BOX(sc_layers::statistics<Backend>));                 \
  library.impl("constrict", SC_LAYERS_BOX(sc_layers::constrict<Backend>));                   \
  library.impl("constrict_backward", SC_LAYERS_BOX(sc_layers::constrict_backward<Backend>)); \
  library.impl("constrict_layer", SC_LAYERS_BOX(sc_layers::constrict_layer<Backend>));       \
  library.impl("constrict_layer_backward", SC_LAYERS_BOX(sc_layers::constrict_layer_backward<Backend>))

}  // namespace sc_layers
