"""One module a revision; none is edited once it was released."""
