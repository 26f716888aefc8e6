"""The emulated ARM64 phone: its image, its machine, its userland."""
