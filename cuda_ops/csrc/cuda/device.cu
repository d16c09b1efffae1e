// Queries a device once; kept apart so that the binding needs no CUDA header.
#include <cuda_runtime.h>

#include "launch.h"

namespace sc_layers {

const char* query_device(int index, Device& device) {
  cudaError_t error = cudaSuccess;
  const auto query = [&](cudaDeviceAttr attribute) {
    int value = 0;
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, attribute, index);
    return value;
  };
  const int capability = 10 * query(cudaDevAttrComputeCapabilityMajor) + query(cudaDevAttrComputeCapabilityMinor);
  device.multiprocessors = query(cudaDevAttrMultiProcessorCount);
  device.shared_per_block = query(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  device.shared_per_multiprocessor = query(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  device.threads_per_multiprocessor = query(cudaDevAttrMaxThreadsPerMultiProcessor);
  device.max_cluster = query(cudaDevAttrClusterLaunch) != 0 ? 8 : 1;  // 8 is what every card with clusters allows
  device.max_grid = query(cudaDevAttrMaxGridDimX);
  device.lanes = capability <= 80 ? 96 : 128;  // half as many float32 units share the issue slots with the others
  device.clock = 1e3 * query(cudaDevAttrClockRate);
  // Both edges of the memory's clock carry data.
  device.bandwidth = 2e3 * query(cudaDevAttrMemoryClockRate) * query(cudaDevAttrGlobalMemoryBusWidth) / 8;
  if (error == cudaSuccess && (device.clock <= 0 || device.bandwidth <= 0)) {
    device.clock = 1.5e9;  // virtual devices may not tell; plans only need the proportion
    device.bandwidth = 1e12;
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace sc_layers
