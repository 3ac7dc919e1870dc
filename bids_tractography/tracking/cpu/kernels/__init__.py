"""Compiled parts of the CPU engine."""
