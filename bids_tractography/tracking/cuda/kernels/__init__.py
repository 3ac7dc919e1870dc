"""Compiled parts of the host's side of tracking on GPUs."""
