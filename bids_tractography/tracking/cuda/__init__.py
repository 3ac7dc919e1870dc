"""Tracking on GPUs."""
