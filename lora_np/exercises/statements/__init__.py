"""The exercises, a file for each lesson: statement, stub, hints, check. Solutions are not in the package."""
