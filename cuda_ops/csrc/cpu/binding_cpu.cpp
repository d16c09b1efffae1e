// The operator on the CPU: chooses an instruction set at run time and lends PyTorch's threads to the kernels.
#include <cstdlib>
#include <cstring>

#include "../binding.h"
#include "kernels.h"

namespace sc_layers {
namespace {

struct Variant {
  const char* name;
  const Kernels* kernels;
  bool supported;  // by this processor and operating system
};

// Best first.
const auto& variants() {
#if defined(__x86_64__)
  static const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  static const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  static const std::array<Variant, 3> all{{{"avx512", &avx512::kernels, has_avx512},
                                           {"avx2", &avx2::kernels, has_avx2},
                                           {"baseline", &baseline::kernels, true}}};
#else
  static const std::array<Variant, 1> all{{{"baseline", &baseline::kernels, true}}};
#endif
  return all;
}

const Variant* chosen_variant() {
  const char* wanted = std::getenv("SC_LAYERS_CPU_ISA");
  for (const Variant& variant : variants()) {
    const bool matches = wanted == nullptr || *wanted == '\0' || std::strcmp(wanted, variant.name) == 0;
    if (matches && variant.supported) return &variant;
  }
  return nullptr;
}

const Kernels& kernels() {
  const Variant* variant = chosen_variant();
  STD_TORCH_CHECK(variant != nullptr, "SC_LAYERS_CPU_ISA=", std::getenv("SC_LAYERS_CPU_ISA"),
                  " names no instruction set of this processor (x86-64: baseline, avx2, avx512; else: baseline)");
  return *variant->kernels;
}

void run_parallel(int64_t size, void (*body)(int64_t, int64_t, void*), void* context) {
  STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, size, 1, body, context));
}

Parallel torch_threads() { return {static_cast<int64_t>(torch::stable::get_num_threads()), run_parallel}; }

struct CpuBackend {
  static size_t forward_workspace(const Shape& shape, int32_t) {
    return kernels().workspace(shape, false, torch_threads().threads);
  }
  static size_t backward_workspace(const Shape& shape, int32_t) {
    return kernels().workspace(shape, true, torch_threads().threads);
  }
  static void forward(const Forward& args, int32_t) { kernels().forward(args, torch_threads()); }
  static void backward(const Backward& args, int32_t) { kernels().backward(args, torch_threads()); }
};

STABLE_TORCH_LIBRARY_IMPL(sc_layers, CPU, library) {
  library.impl("constrict", TORCH_BOX(&constrict<CpuBackend>));
  library.impl("constrict_backward", TORCH_BOX(&constrict_backward<CpuBackend>));
}

}  // namespace
}  // namespace sc_layers

// For `sc-layers doctor` and tests, by ctypes.
extern "C" {
// Name of the instruction set in use, or null if SC_LAYERS_CPU_ISA names none that this processor has.
__attribute__((visibility("default"))) const char* sc_layers_cpu_isa() {
  const sc_layers::Variant* variant = sc_layers::chosen_variant();
  return variant == nullptr ? nullptr : variant->name;
}

// 1 if this processor can run the named variant, 0 if not or if there is no such variant.
__attribute__((visibility("default"))) int sc_layers_cpu_supports(const char* name) {
  for (const sc_layers::Variant& variant : sc_layers::variants()) {
    if (std::strcmp(name, variant.name) == 0) return variant.supported;
  }
  return 0;
}
}
