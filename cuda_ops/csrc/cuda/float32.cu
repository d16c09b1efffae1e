#include "launch.cuh"

namespace sc_layers {

const Launcher kFloat32{forward_of<float>, backward_of<float>};

}  // namespace sc_layers
