"""Metrics of generators and encoders."""
