"""Measurements: `python -m bench` times every rule and whole training steps, here and beside other libraries."""
