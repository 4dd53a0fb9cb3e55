"""The laws of all exercises: a function for each; or one for an exercise, which yields what each law claims."""
