"""What is done with one case, one pass after another, each in processes of its own.

Profiling, polling and energy disturb what they look at, so none of them happens while time is
taken: each is a pass with a fresh process of the runner. The first pass, timing, decides what
becomes of the case; another one that fails leaves its rows with the reason.
"""
