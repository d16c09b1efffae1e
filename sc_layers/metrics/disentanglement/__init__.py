"""Scores of how well codes and factors of variation match, supervised and not."""
