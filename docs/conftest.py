"""Only the pages are tested here: the code that makes the site needs Sphinx."""

collect_ignore_glob = ["_build/*", "_ext/*", "lessons/*", "practice/*", "claims/*", "conf.py"]
collect_ignore_glob += ["browser/*", "explorer/*"]
