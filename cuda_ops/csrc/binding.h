// The operator's two kernels for one backend: checks of the arguments, allocation of the results, launch.
//
// A backend is a class with
//   static size_t forward_workspace(const Shape&, int32_t device_index);     bytes of scratch memory
//   static size_t backward_workspace(const Shape&, int32_t device_index);
//   static void forward(const Forward&, int32_t device_index);
//   static void backward(const Backward&, int32_t device_index);
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <array>
#include <initializer_list>
#include <optional>
#include <tuple>

#include "constrict.h"

namespace sc_layers {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Scalar scalar_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return Scalar::f32;
    case ScalarType::Double:
      return Scalar::f64;
    case ScalarType::Half:
      return Scalar::f16;
    case ScalarType::BFloat16:
      return Scalar::bf16;
    default:
      STD_TORCH_CHECK(false, "sc_layers::constrict: x must be of floating point, got ", toString(type));
  }
  return Scalar::f32;
}

inline ScalarType compute_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Whether a tensor lies densely with its dimensions in the given order, innermost first (PyTorch's own rule).
inline bool lies_as(const Tensor& tensor, const std::array<int, 4>& order) {
  int64_t expected = 1;
  for (int dim : order) {
    if (tensor.size(dim) == 1) continue;
    if (tensor.stride(dim) != expected) return false;
    expected *= tensor.size(dim);
  }
  return true;
}

// The tensor itself where it is contiguous: the call into PyTorch would take longer than the question.
inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// x as the kernels read it: itself if contiguous or channels_last, else a contiguous copy.
struct Features {
  Tensor tensor;
  bool channels_last;
};

inline Features native_features(const Tensor& x) {
  if (x.is_contiguous()) return {x, false};
  if (lies_as(x, {1, 3, 2, 0})) return {x, true};
  return {torch::stable::contiguous(x), false};
}

inline void check_like(const Tensor& tensor, const char* name, const Tensor& x, ScalarType type,
                       std::initializer_list<int64_t> sizes) {
  STD_TORCH_CHECK(tensor.scalar_type() == type, "sc_layers::constrict: ", name, " must be ", toString(type),
                  " for this x, got ", toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.device() == x.device(), "sc_layers::constrict: ", name, " is not on the device of x");
  bool fits = tensor.dim() == static_cast<int64_t>(sizes.size());
  int64_t dim = 0;
  for (int64_t size : sizes) fits = fits && tensor.size(dim++) == size;
  STD_TORCH_CHECK(fits, "sc_layers::constrict: the shape of ", name, " does not fit x and the gate logits");
}

// The inputs of the forward pass, checked and contiguous.
struct Inputs {
  Features x;
  Tensor gate_logits_h, gate_logits_w, scale, bias;
  std::optional<Tensor> mask_gain;
  ScalarType compute;
  Shape shape;

  Inputs(const Tensor& x_, const Tensor& logits_h, const Tensor& logits_w, const Tensor& scale_, const Tensor& bias_,
         const std::optional<Tensor>& gain) {
    STD_TORCH_CHECK(x_.dim() == 4, "sc_layers::constrict: x must be [N, C, H, W]");
    STD_TORCH_CHECK(logits_h.dim() == 5, "sc_layers::constrict: gate_logits_h must be [N, K, J, 2, H]");
    const Scalar scalar = scalar_of(x_.scalar_type());
    compute = compute_type(x_.scalar_type());
    x = native_features(x_);
    shape = {x_.size(0),       x_.size(1),       x_.size(2), x_.size(3),
             logits_h.size(1), logits_h.size(2), scalar,     x.channels_last};
    const auto& s = shape;
    STD_TORCH_CHECK(s.c > 0 && s.h > 0 && s.w > 0 && s.k > 0 && s.j > 0,
                    "sc_layers::constrict: only the batch may be empty");
    check_like(logits_h, "gate_logits_h", x_, compute, {s.n, s.k, s.j, 2, s.h});
    check_like(logits_w, "gate_logits_w", x_, compute, {s.n, s.k, s.j, 2, s.w});
    check_like(scale_, "scale", x_, compute, {s.n, s.k, s.c});
    check_like(bias_, "bias", x_, compute, {s.n, s.k, s.c});
    if (gain) check_like(*gain, "mask_gain", x_, compute, {s.k});
    gate_logits_h = dense(logits_h);
    gate_logits_w = dense(logits_w);
    scale = dense(scale_);
    bias = dense(bias_);
    if (gain) mask_gain = dense(*gain);
  }

  Tensor empty(std::initializer_list<int64_t> sizes) const {
    return torch::stable::new_empty(scale, {sizes.begin(), sizes.size()}, compute);
  }

  Tensor workspace(size_t bytes) const {
    const std::array<int64_t, 1> size{static_cast<int64_t>(bytes)};
    return torch::stable::new_empty(scale, {size.data(), 1}, ScalarType::Byte);
  }
};

template <typename Backend>
std::tuple<Tensor, Tensor, Tensor> constrict(const Tensor& x, const Tensor& gate_logits_h, const Tensor& gate_logits_w,
                                             const Tensor& scale, const Tensor& bias,
                                             const std::optional<Tensor>& mask_gain, double eps) {
  const Inputs in(x, gate_logits_h, gate_logits_w, scale, bias, mask_gain);
  const Shape& s = in.shape;
  Tensor y = torch::stable::empty_like(in.x.tensor);
  Tensor mean = in.empty({s.n, s.c});
  Tensor rstd = in.empty({s.n, s.c});
  if (s.n > 0) {
    const Tensor scratch = in.workspace(Backend::forward_workspace(s, x.get_device_index()));
    Backend::forward(
        {s, in.x.tensor.const_data_ptr(), in.gate_logits_h.const_data_ptr(), in.gate_logits_w.const_data_ptr(),
         in.scale.const_data_ptr(), in.bias.const_data_ptr(), in.mask_gain ? in.mask_gain->const_data_ptr() : nullptr,
         eps, y.mutable_data_ptr(), mean.mutable_data_ptr(), rstd.mutable_data_ptr(), scratch.mutable_data_ptr()},
        x.get_device_index());
  }
  return {y, mean, rstd};
}

template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> constrict_backward(
    const Tensor& grad, const Tensor& x, const Tensor& gate_logits_h, const Tensor& gate_logits_w, const Tensor& scale,
    const Tensor& bias, const std::optional<Tensor>& mask_gain, const Tensor& mean, const Tensor& rstd) {
  const Inputs in(x, gate_logits_h, gate_logits_w, scale, bias, mask_gain);
  const Shape& s = in.shape;
  check_like(grad, "the gradient", x, x.scalar_type(), {s.n, s.c, s.h, s.w});
  check_like(mean, "mean", x, in.compute, {s.n, s.c});
  check_like(rstd, "rstd", x, in.compute, {s.n, s.c});
  const bool grad_fits = s.channels_last ? lies_as(grad, {1, 3, 2, 0}) : grad.is_contiguous();
  const auto format = s.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const Tensor grad_y = grad_fits ? grad : torch::stable::contiguous(grad, format);
  const Tensor means = dense(mean);
  const Tensor rstds = dense(rstd);
  Tensor grad_x = torch::stable::empty_like(in.x.tensor);
  Tensor grad_logits_h = in.empty({s.n, s.k, s.j, 2, s.h});
  Tensor grad_logits_w = in.empty({s.n, s.k, s.j, 2, s.w});
  Tensor grad_scale = in.empty({s.n, s.k, s.c});
  Tensor grad_bias = in.empty({s.n, s.k, s.c});
  Tensor grad_gain = in.empty({mask_gain ? s.k : 0});
  if (s.n > 0) {
    const Tensor scratch = in.workspace(Backend::backward_workspace(s, x.get_device_index()));
    Backend::backward({s, grad_y.const_data_ptr(), in.x.tensor.const_data_ptr(), in.gate_logits_h.const_data_ptr(),
                       in.gate_logits_w.const_data_ptr(), in.scale.const_data_ptr(), in.bias.const_data_ptr(),
                       in.mask_gain ? in.mask_gain->const_data_ptr() : nullptr, means.const_data_ptr(),
                       rstds.const_data_ptr(), grad_x.mutable_data_ptr(), grad_logits_h.mutable_data_ptr(),
                       grad_logits_w.mutable_data_ptr(), grad_scale.mutable_data_ptr(), grad_bias.mutable_data_ptr(),
                       mask_gain ? grad_gain.mutable_data_ptr() : nullptr, scratch.mutable_data_ptr()},
                      x.get_device_index());
  } else if (mask_gain) {
    grad_gain = torch::stable::zero_(grad_gain);
  }
  return {grad_x, grad_logits_h, grad_logits_w, grad_scale, grad_bias, grad_gain};
}

}  // namespace sc_layers
