"""The fused operator `sc_layers::constrict`: schema and derivatives, compilation and loading of its native kernels."""
