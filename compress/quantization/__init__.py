"""What the step ``quantize`` stands on: its modes, ranges, roundings, repairs and the gate."""
