"""How often the gate is wrong: on simulated devices, and on the emulated phone."""
