// What a backend (CPU, CUDA) implements: the steps of spatial constriction as plain pointers.
// No torch header here, so that kernels compile without one. No size is 0.
//
//   mean, rstd of every plane of x;  x_hat = (x - mean) * rstd                                      statistics
//   scale_k = 1 + code_k * style_weight[k, 0] + style_bias[k, 0],  bias_k likewise without the 1    styles
//   a_k  = gain_k / J * sum_j outer(gate_h[k, j], gate_w[k, j]),  gate = cumax(start) * (1 - cumax(end))
//   w_k  = a_k * prod_{l>k} (1 - a_l),  keep = prod_k (1 - a_k)
//   y    = keep * x + sum_k w_k * (scale_k * x_hat + bias_k)                                        apply
//
// The gate logits are linear in the means (Eq. 1-2); the binding makes them from the statistics by two matrix products.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sc_layers {

// Type of x, y and their gradients. All other tensors are float64 if this is f64, else float32.
enum class Scalar { f32, f64, f16, bf16 };

struct Shape {
  int64_t n, c, h, w;  // x
  int64_t k, j;        // codes in the group, rectangles a code; 0 where a step has none
  Scalar scalar;
  bool channels_last;  // x, y and their gradients lie as [n, h, w, c]; else as [n, c, h, w]
};

struct Statistics {
  Shape shape;
  const void* x;
  double eps;
  void* mean;  // [n, c]
  void* rstd;  // [n, c], 1 / sqrt(var + eps), the variance from deviations from the mean
  void* workspace;
};

struct Styles {
  Shape shape;
  const void* codes;         // [n, k]
  const void* style_weight;  // [k, 2, c]
  const void* style_bias;    // [k, 2, c]
  void* scale;               // [n, k, c]
  void* bias;                // [n, k, c]
};

struct StylesBackward {
  Shape shape;
  const void* codes;
  const void* style_weight;
  const void* grad_scale;
  const void* grad_bias;
  void* grad_codes;         // null where not wanted
  void* grad_style_weight;  // null where not wanted
  void* grad_style_bias;    // null where not wanted
};

// The inputs that decide what happens at each pixel and channel.
struct Group {
  const void* mean;           // [n, c]
  const void* rstd;           // [n, c]
  const void* gate_logits_h;  // [n, k, j, 2, h], the pair is (start, end)
  const void* gate_logits_w;  // [n, k, j, 2, w]
  const void* scale;          // [n, k, c]
  const void* bias;           // [n, k, c]
  const void* mask_gain;      // [k], or null for ones
};

struct Apply {
  Shape shape;
  Group group;
  const void* x;
  void* y;
  void* workspace;  // as many bytes as the backend asked for
};

// First half of the backward pass: every gradient but that of x.
struct BackwardSums {
  Shape shape;
  Group group;
  const void* grad;  // dL/dy
  const void* x;
  const void* added_gate_logits_h;  // null, or what else reaches the logits (through masks): part of the result
  const void* added_gate_logits_w;
  void* grad_gate_logits_h;
  void* grad_gate_logits_w;
  void* grad_scale;      // sum_hw grad * w_k * x_hat
  void* grad_bias;       // sum_hw grad * w_k
  void* grad_mask_gain;  // [n, k], the share of every sample; null if mask_gain is
  void* workspace;
};

// Second half: dL/dx, complete in one pass. Follows `BackwardSums` of the same call with the same workspace.
//   q = grad * sum_k w_k scale_k;  mean(q) and mean(q x_hat) follow from grad_bias and grad_scale
//   dL/dx = keep * grad + rstd * (q - mean(q) - x_hat * mean(q x_hat)) + grad_mean / (h w)
struct BackwardInput {
  Shape shape;
  Group group;
  const void* grad;
  const void* x;
  const void* grad_scale;
  const void* grad_bias;
  const void* grad_mean;  // [n, c], what reaches x through the gate projection; null for zeros
  void* grad_x;
  void* workspace;
};

}  // namespace sc_layers
