"""Readers of data sources: files, folders, libraries and the user's own code."""
