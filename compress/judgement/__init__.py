"""What each step bought: figures of a program, intervals, and whether it was worth it."""
