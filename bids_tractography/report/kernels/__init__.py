"""Compiled parts of what is computed from tractograms."""
