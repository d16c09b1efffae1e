#include "launch.cuh"

namespace sc_layers {

const Launcher kFloat16{forward_of<__half>, backward_of<__half>};

}  // namespace sc_layers
