"""Proof that an artifact computes what the program that it came from computes."""
