"""How fast the agent is, beside the tools that it could be compared with: `make bench-agent`."""
