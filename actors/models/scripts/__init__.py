"""Scripts: the scenes that the scripted server plays, one JSON file a story."""
