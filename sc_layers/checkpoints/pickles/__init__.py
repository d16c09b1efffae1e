"""Reading pickles without running anything from them: a machine of our own over a closed table of names."""
