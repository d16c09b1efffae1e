#include "launch.cuh"

namespace sc_layers {

const Launcher kBfloat16{forward_of<__nv_bfloat16>, backward_of<__nv_bfloat16>};

}  // namespace sc_layers
