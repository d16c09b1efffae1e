"""Reading other programs' checkpoints without running anything from them."""
