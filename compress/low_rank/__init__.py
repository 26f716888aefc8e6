"""What the step ``factorize`` stands on: decompositions, ranks, and layers made of factors."""
