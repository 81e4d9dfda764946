"""The `troupe` command's groups, one a file; `actors.cli` puts them together."""
