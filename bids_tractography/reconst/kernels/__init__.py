"""Compiled parts of the reconstruction models."""
