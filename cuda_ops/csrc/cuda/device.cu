// Queries a device once; kept apart so that the binding needs no CUDA header.
#include <cuda_runtime.h>

#include "launch.h"

namespace sc_layers {

const char* query_device(int index, Device& device) {
  const cudaError_t error = cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, index);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace sc_layers
