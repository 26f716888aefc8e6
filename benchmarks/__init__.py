"""What is timed; a figure here is never a test's verdict."""
