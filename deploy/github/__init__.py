"""GitHub's REST API, as far as a comment on a pull request needs it."""
