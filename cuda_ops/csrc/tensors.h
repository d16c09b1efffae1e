// PyTorch's tensors by its stable ABI, as it is in the oldest version that we support: errors, checks, memory, views.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

#include "constrict.h"

// PyTorch keeps the message of an error from 2.13 on; in older versions this symbol is null.
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();

namespace sc_layers {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What messages are made of. No streams: their locales are shared by all copies of the C++ library in a process, and a
// compiler that links it statically brings a copy of its own.
inline void append(std::string& text, const char* part) { text += part; }
inline void append(std::string& text, int64_t number) { text += std::to_string(number); }
inline void append(std::string& text, const Tensor& tensor) {
  text += "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) text += (i > 0 ? ", " : "") + std::to_string(tensor.size(i));
  text += "]";
}

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::string message = "sc_layers: ";
  (append(message, parts), ...);
  throw std::runtime_error(message);
}

// Throws if a C function of PyTorch returned an error. Older versions print what it was, newer ones say it.
template <typename... Parts>
void check(AOTITorchError code, const Parts&... what) {
  if (code == AOTI_TORCH_SUCCESS) return;
  const bool has_reason = torch_exception_get_what_without_backtrace != nullptr;
  fail(what..., " failed: ", has_reason ? torch_exception_get_what_without_backtrace() : "PyTorch printed why");
}

// A kernel for the dispatcher: whatever is thrown inside leaves it as one kind of exception, with nothing left to
// unwind.
template <typename Function, Function* function>
void guarded(StableIValue* stack, uint64_t inputs, uint64_t outputs) {
  std::string message;
  try {
    torch::stable::detail::boxer<Function, function>::boxed_fn(stack, inputs, outputs);
    return;
  } catch (const std::exception& error) {
    message = error.what();
  } catch (...) {
    message = "sc_layers: unknown error";
  }
  throw std::runtime_error(message);
}
#define SC_LAYERS_BOX(...) \
  sc_layers::guarded<std::remove_pointer_t<std::remove_reference_t<decltype(&(__VA_ARGS__))>>, &(__VA_ARGS__)>

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
      fail("x must be of floating point, got ", toString(type));
  }
}

inline ScalarType compute_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline size_t bytes_of(ScalarType type) {
  if (type == ScalarType::Double) return 8;
  return type == ScalarType::Float ? 4 : 2;
}

inline int32_t code_of(ScalarType type) {
  return type == ScalarType::Double ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
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

inline Tensor owned(AtenTensorHandle handle) { return Tensor(handle); }

// Memory on the device of another tensor.
inline Tensor empty_strided(const Tensor& like, int64_t dims, const int64_t* sizes, const int64_t* strides,
                            int32_t type) {
  int32_t device = 0;
  check(aoti_torch_get_device_type(like.get(), &device), "reading a device");
  AtenTensorHandle handle = nullptr;
  const AOTITorchError code =
      aoti_torch_empty_strided(dims, sizes, strides, type, device, like.get_device_index(), &handle);
  if (code != AOTI_TORCH_SUCCESS) {
    int64_t count = 1;
    for (int64_t i = 0; i < dims; ++i) count *= sizes[i];
    check(code, "allocating ", count, " numbers");
  }
  return owned(handle);
}

inline int32_t dtype_of(const Tensor& tensor) {
  int32_t type = 0;
  check(aoti_torch_get_dtype(tensor.get(), &type), "reading a dtype");
  return type;
}

// A copy that lies densely with its dimensions in the given order, innermost first.
template <size_t DIMS>
Tensor copy_as(const Tensor& tensor, const std::array<int, DIMS>& order) {
  std::array<int64_t, DIMS> strides{};
  int64_t stride = 1;
  for (int dim : order) {
    strides[dim] = stride;
    stride *= std::max<int64_t>(tensor.size(dim), 1);
  }
  Tensor copy = empty_strided(tensor, DIMS, tensor.sizes().data(), strides.data(), dtype_of(tensor));
  check(aoti_torch_copy_(copy.get(), tensor.get(), 0), "copying a tensor ", tensor);
  return copy;
}

// The tensor itself where it is contiguous, else a copy.
inline Tensor dense(const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  switch (tensor.dim()) {
    case 1:
      return copy_as<1>(tensor, {0});
    case 2:
      return copy_as<2>(tensor, {1, 0});
    case 3:
      return copy_as<3>(tensor, {2, 1, 0});
    case 4:
      return copy_as<4>(tensor, {3, 2, 1, 0});
    default:
      return copy_as<5>(tensor, {4, 3, 2, 1, 0});
  }
}

constexpr std::array<int, 4> kChannelsLast{1, 3, 2, 0};

inline void check_like(const Tensor& tensor, const char* name, const Tensor& x, ScalarType type,
                       std::initializer_list<int64_t> sizes) {
  if (tensor.scalar_type() != type) {
    fail(name, " must be ", toString(type), " for this x, got ", toString(tensor.scalar_type()));
  }
  if (!(tensor.device() == x.device())) fail(name, " is not on the device of x");
  bool fits = tensor.dim() == static_cast<int64_t>(sizes.size());
  int64_t dim = 0;
  for (int64_t size : sizes) fits = fits && tensor.size(dim++) == size;
  if (!fits) fail("the shape of ", name, ", ", tensor, ", does not fit x ", x);
}

// Features as the kernels read them: as they are if contiguous or channels_last, else a contiguous copy.
struct Features {
  Tensor tensor;
  ScalarType type, computed;
  Shape shape;  // of the features alone

  explicit Features(const Tensor& x) : tensor(x), type(x.scalar_type()), computed(compute_type(type)) {
    if (x.dim() != 4) fail("x must be [N, C, H, W], got ", x);
    shape = {x.size(0), x.size(1), x.size(2), x.size(3), 0, 0, scalar_of(type), false};
    if (shape.c < 1 || shape.h < 1 || shape.w < 1) fail("only the batch may be empty, got x ", x);
    if (x.is_contiguous()) return;
    shape.channels_last = lies_as(x, kChannelsLast);
    if (!shape.channels_last) tensor = dense(x);
  }

  // `other` in the layout of x, once it is known to have the shape and dtype of x.
  Tensor like(const Tensor& other, const char* name) const {
    check_like(other, name, tensor, type, {shape.n, shape.c, shape.h, shape.w});
    if (!shape.channels_last) return dense(other);
    return lies_as(other, kChannelsLast) ? other : copy_as(other, kChannelsLast);
  }
};

// `tensor` made contiguous, once it is known to be what belongs to x, of the type that x is computed in.
inline Tensor checked(const Tensor& tensor, const char* name, const Features& x, std::initializer_list<int64_t> sizes) {
  check_like(tensor, name, x.tensor, x.computed, sizes);
  return dense(tensor);
}

inline Tensor empty_like(const Features& x) {
  const Tensor& t = x.tensor;
  return empty_strided(t, 4, t.sizes().data(), t.strides().data(), dtype_of(t));
}

// A contiguous tensor of the type that x is computed in.
inline Tensor empty(const Features& x, std::initializer_list<int64_t> sizes) {
  std::array<int64_t, 5> strides{};
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes.begin()[i] > 0 ? sizes.begin()[i] : 1;
  }
  return empty_strided(x.tensor, static_cast<int64_t>(sizes.size()), sizes.begin(), strides.data(),
                       code_of(x.computed));
}

// Part of a tensor as a matrix of `rows` rows that lie one after the other, from element `offset` on.
inline Tensor matrix(const Tensor& tensor, int64_t offset, int64_t rows, int64_t columns, bool transposed = false) {
  const std::array<int64_t, 2> sizes{transposed ? columns : rows, transposed ? rows : columns};
  const std::array<int64_t, 2> strides{transposed ? 1 : columns, transposed ? columns : 1};
  AtenTensorHandle handle = nullptr;
  check(aoti_torch__reinterpret_tensor(tensor.get(), 2, sizes.data(), strides.data(), offset, &handle),
        "taking a view");
  return owned(handle);
}

// What a kernel reads, and what it writes; null if there is no tensor.
inline const void* data_of(const Tensor& tensor) { return tensor.const_data_ptr(); }
inline const void* data_of(const std::optional<Tensor>& tensor) { return tensor ? data_of(*tensor) : nullptr; }
inline void* room_in(const Tensor& tensor) { return tensor.mutable_data_ptr(); }
inline void* room_in(const std::optional<Tensor>& tensor) { return tensor ? room_in(*tensor) : nullptr; }

// Scratch memory of a call: `take` says where every piece lies, then `allocate` makes them all at once.
class Workspace {
 public:
  explicit Workspace(const Features& x) : x_(x), bytes_each_(bytes_of(x.computed)) {}

  // Offset of a piece, in numbers of the type that x is computed in. Pieces are aligned for any access.
  int64_t take(int64_t count) {
    const int64_t at = size_;
    size_ += (count + 63) / 64 * 64;
    return at;
  }
  int64_t take_bytes(size_t bytes) { return take(static_cast<int64_t>((bytes + bytes_each_ - 1) / bytes_each_)); }

  void allocate() { memory_ = empty(x_, {size_}); }
  const Tensor& tensor() const { return *memory_; }
  char* at(int64_t offset) const { return static_cast<char*>(memory_->mutable_data_ptr()) + offset * bytes_each_; }

 private:
  const Features& x_;
  int64_t bytes_each_;
  int64_t size_ = 0;
  std::optional<Tensor> memory_;
};

}  // namespace sc_layers
