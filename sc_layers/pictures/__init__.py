"""Pictures of what a generator does: grids, sweeps of codes, masks."""
