"""What weight sharing stands on: codebooks, their sizes, and which weight gets which value."""
