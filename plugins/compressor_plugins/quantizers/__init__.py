"""Quantizers: int8 files from exported ones."""
