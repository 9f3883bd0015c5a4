"""The ground truth: the reference, its autodiff in float64, finite differences, and the tolerance for rounding and kinks."""
