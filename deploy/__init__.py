"""A compressed model in, verdicts out: export, verify, run on devices, measure, report."""

__version__ = "0.1.0"
