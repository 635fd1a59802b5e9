"""Capture: targets, events, and the session that writes a recording."""
