"""What compression reaches: our recipes beside single libraries, on networks with labelled data.

    python -m benchmarks.compression [--model ROW] [--seeds N] [--jobs N] [--fresh]

A row (``rows/*.yaml``) is a network with its variants and targets. Each (row, variant, seed) is one
*unit*: a process that makes the variant and measures it, and leaves one JSON file. What is there
already is not made again.
"""
