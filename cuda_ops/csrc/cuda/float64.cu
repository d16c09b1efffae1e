#include "launch.cuh"

namespace sc_layers {

const Launcher kFloat64{forward_of<double>, backward_of<double>};

}  // namespace sc_layers
