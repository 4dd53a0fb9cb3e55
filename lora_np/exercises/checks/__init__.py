"""The laws of all exercises: a function for each, or one that yields what each law of an exercise
claims.
"""
