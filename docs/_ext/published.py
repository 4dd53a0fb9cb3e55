"""Commands on pages install from the index, once [tool.publication] in pyproject.toml names the package."""

from sphinx.application import Sphinx

from hatch_build import installable, package


def install(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = installable(source[0], package())


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", install)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
