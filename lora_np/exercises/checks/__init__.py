"""The laws of all exercises: a function for each, or for all laws of an exercise, called after it."""
