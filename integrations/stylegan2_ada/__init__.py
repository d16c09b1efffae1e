"""NVlabs stylegan2-ada-pytorch."""
