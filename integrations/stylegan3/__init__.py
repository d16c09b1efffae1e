"""NVlabs stylegan3."""
