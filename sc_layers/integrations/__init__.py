"""What the patched training scripts of other code bases call, and the patches themselves."""
