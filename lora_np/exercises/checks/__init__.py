"""Check the laws of all exercises: a function for each law, or one for all laws of an exercise."""
