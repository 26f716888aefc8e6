"""Ways to reach a device: push, pull, shell, and what it says about itself."""
