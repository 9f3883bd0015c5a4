"""Measurements: `python -m bench` times every rule and whole training steps, in fnnet and in other libraries."""
