"""Setup: a repository's dependencies, installed before an agent begins and never by one."""
