"""Benchmarks: commands that print what the README quotes."""
