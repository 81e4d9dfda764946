"""HTTP for what every Troupe has: agents, messages, jobs, registry, feed, health."""
