"""Every figure of the package: functions that take arrays and an optional ``ax=`` and return the axes."""
