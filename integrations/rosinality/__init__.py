"""rosinality stylegan2-pytorch."""
