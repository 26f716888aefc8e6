"""A compressed model in, verdicts out: export, verify, run on devices, measure, report."""

import os

__version__ = "0.1.0"

# Set before the libraries load. ONNX Runtime uploads usage data on Linux since 1.31
# (onnxruntime pull request 27379). OpenMP threads that spin make a busy CI many times slower.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
