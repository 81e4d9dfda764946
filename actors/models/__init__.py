"""Models: settings, prices, the client, and the scripted server that needs no model."""
