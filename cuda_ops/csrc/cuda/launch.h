// The steps of constrict.h on CUDA, on raw pointers. No torch header and no CUDA header.
#pragma once

#include <cstddef>

#include "../constrict.h"

namespace sc_layers {

// What the size of a launch depends on.
struct Device {
  int multiprocessors;
};

// Of a CUDA device by its index; null, or the text of the error.
const char* query_device(int index, Device& device);

// Bytes of scratch memory that a step needs. `backward_workspace` is for both halves of the backward pass: what
// `launch_backward_sums` leaves there, `launch_backward_input` reads.
size_t statistics_workspace(const Shape& shape, const Device& device);
size_t apply_workspace(const Shape& shape, const Device& device);
size_t backward_workspace(const Shape& shape, const Device& device);

// Enqueue a step on a CUDA stream of the current device; null, or why that failed. Nothing is waited for or allocated.
const char* launch_statistics(const Statistics& call, const Device& device, void* stream);
const char* launch_styles(const Styles& call, const Device& device, void* stream);
const char* launch_styles_backward(const StylesBackward& call, const Device& device, void* stream);
const char* launch_apply(const Apply& call, const Device& device, void* stream);
const char* launch_backward_sums(const BackwardSums& call, const Device& device, void* stream);
const char* launch_backward_input(const BackwardInput& call, const Device& device, void* stream);

}  // namespace sc_layers
