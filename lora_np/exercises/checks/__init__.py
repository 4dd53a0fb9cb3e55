"""The laws of all exercises: a function for each, called after its exercise and its key in the data."""
