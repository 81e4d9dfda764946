"""Intake: what comes from outside becomes an issue and a message; people's decisions too."""
