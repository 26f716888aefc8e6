"""PyTorch model in, smaller PyTorch model out. This package knows nothing of phones."""
