"""The site. One command builds it: python -m sphinx -W --keep-going docs docs/_build/html"""

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE / "explorer"), str(HERE.parent)]

import palette  # noqa: E402
from source_links import resolver  # noqa: E402

from hatch_build import publication  # noqa: E402
from lora_np.version import __version__  # noqa: E402

# Generated before Sphinx reads, and never committed: see _ext/materials.py.
MADE = HERE / "_build" / "made"

project = "lora_np"
author = "The lora_np developers"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "notfound.extension",
    "sphinx_copybutton",
    "materials",
    "public_names",
    "published",
    "sharing",
    "docstrings",
    "command_line",
    "lesson_links",
    "lesson_cells",
    "explorables",
    "exercise_pages",
    "puzzle_pages",
    "claim_pages",
    "bibliography",
    "advice",
    "report",
    "family",
    "gallery",
    "menu",
    "statements",
    "code_blocks",
    "accessible",
    "formulas",
    "policy",
]
exclude_patterns = [
    "_build",
    "_ext",
    "browser",
    "explorer",
    "understand/faq.md",  # a part of understand/questions.md
    "**/.ipynb_checkpoints",
]
nitpicky = True
default_role = "name"
# Types in docstrings are words for people ("mapping of str to int"): links are checked for full
# names.
nitpick_ignore_regex = [("py:class", r"(?!lora_np\.|numpy\.|matplotlib\.).*")]
highlight_language = "python3"

# Pages are Markdown; lessons come executed.
nb_execution_mode = "off"
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The reference is what `__all__` names, in its order there.
autosummary_generate = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # docstrings say the types, with shapes
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_preprocess_types = True
add_module_names = False
python_use_unqualified_type_names = True

# Inventories are made from the installed packages, so a build needs no network but its registries.
intersphinx_mapping = {
    "numpy": ("https://numpy.org/doc/stable", str(MADE / "inventories" / "numpy.inv")),
    "matplotlib": ("https://matplotlib.org/stable", str(MADE / "inventories" / "matplotlib.inv")),
}

# The script is taken off again by _ext/formulas.py, which typesets the formulas.
mathjax_path = "mathjax/tex-mml-chtml.js"

# Prompts and output stay out of what is copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


html_theme = "furo"
html_title = "lora_np"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", str(MADE / "static")]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer", "priority": 300})]  # before scripts of pages
html_copy_source = False
html_show_sphinx = False
html_theme_options: dict[str, Any] = {
    f"{scheme}_css_variables": palette.variables(scheme) for scheme in ("light", "dark")
}

# What needs to know where the site is, and is left out until [tool.publication] in pyproject.toml
# says it.
repository, site = publication()
here = os.environ.get("SITE_VERSION", "")  # from versions.py: "latest", or a release
prefix = f"{here}/" if here else ""
ref = f"v{here}" if here not in ("", "latest") else "main"
notfound_urls_prefix = f"{urlsplit(site).path or '/'}{prefix}"
lesson_links_repository, lesson_links_ref = repository, ref
templates_path = ["_templates"]
html_context = {"here": here}
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
        *(["versions.html"] if here else []),
    ]
}
if site:
    import card

    extensions += ["sphinxext.opengraph", "sphinx_sitemap"]
    html_baseurl = ogp_site_url = f"{site}{prefix}"
    sitemap_url_scheme = "{link}"
    sitemap_excludes = ["404.html", "search.html", "genindex.html", "py-modindex.html"]
    ogp_image, ogp_image_alt = "_static/card.png", card.alt()  # made by explorer/card.py
    ogp_custom_meta_tags = card.TAGS
if repository:
    extensions.append("sphinx.ext.linkcode")
    linkcode_resolve = resolver(repository, ref)
    html_theme_options |= {
        "source_repository": f"https://github.com/{repository}",
        "source_branch": ref,
        "source_directory": "docs/",
        "top_of_page_buttons": ["view", "edit"] if ref == "main" else ["view"],
    }
