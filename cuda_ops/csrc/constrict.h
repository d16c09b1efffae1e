// What a backend (CPU, CUDA) implements: the arguments of the fused operator as plain pointers.
// No torch header here, so that kernels compile without one.
//
//   a_k = gain_k / J * sum_j outer(gate_h[k, j], gate_w[k, j]),   gate = cumax(start) * (1 - cumax(end))
//   w_k = a_k * prod_{l>k} (1 - a_l),   keep = prod_k (1 - a_k)
//   y   = keep * x + sum_k w_k * (scale_k * x_hat + bias_k),   x_hat = (x - mean) * rstd
#pragma once

#include <cstddef>
#include <cstdint>

namespace sc_layers {

// Type of x, y and their gradients. All other tensors are float64 if this is f64, else float32.
enum class Scalar { f32, f64, f16, bf16 };

struct Shape {
  int64_t n, c, h, w;  // x
  int64_t k, j;        // codes in the group, rectangles a code
  Scalar scalar;
  bool channels_last;  // x, y and their gradients lie as [n, h, w, c]; else as [n, c, h, w]
};

struct Forward {
  Shape shape;
  const void* x;
  const void* gate_logits_h;  // [n, k, j, 2, h], the pair is (start, end)
  const void* gate_logits_w;  // [n, k, j, 2, w]
  const void* scale;          // [n, k, c]
  const void* bias;           // [n, k, c]
  const void* mask_gain;      // [k], or null for ones
  double eps;
  void* y;
  void* mean;       // [n, c]
  void* rstd;       // [n, c], 1 / sqrt(var + eps)
  void* workspace;  // as many bytes as the backend asked for
};

struct Backward {
  Shape shape;
  const void* grad;  // dL/dy
  const void* x;
  const void* gate_logits_h;
  const void* gate_logits_w;
  const void* scale;
  const void* bias;
  const void* mask_gain;
  const void* mean;
  const void* rstd;
  void* grad_x;
  void* grad_gate_logits_h;
  void* grad_gate_logits_w;
  void* grad_scale;
  void* grad_bias;
  void* grad_mask_gain;  // null if mask_gain is
  void* workspace;
};

}  // namespace sc_layers
