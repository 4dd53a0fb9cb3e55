"""The course as it travels with the package: lessons, widgets, the tour."""
