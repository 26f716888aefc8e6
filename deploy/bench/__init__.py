"""Push, run, collect: cases on devices."""
