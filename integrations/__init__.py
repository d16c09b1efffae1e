"""Spatial constriction in StyleGAN2 code bases: one folder each, with adapter, training helpers, patches and a page."""
