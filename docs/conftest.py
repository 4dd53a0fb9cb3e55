"""Only the pages are tested here: what makes the site needs Sphinx, and its output is no source."""

collect_ignore_glob = ["_build/*", "_ext/*", "lessons/*", "conf.py"]
