"""What all topics need: results, recorders, loads."""
