"""The department: agents that work on issues, what they need, and the command `troupe`."""
