"""The benchmark: speed and cost of the worker, compared with baselines."""
