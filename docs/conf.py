"Sphinx's settings. The sources that it reads are laid by scripts/book.py."
import os
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
settings = ConfigParser()
settings.read(ROOT/"settings.ini", encoding="utf-8")
repository = os.environ.get("FDL_REPOSITORY") or os.environ.get("GITHUB_REPOSITORY", "")

project = "Foundations of Deep Learning"
author = settings["DEFAULT"]["author"]
version = release = settings["DEFAULT"]["version"]
language = "en"
extensions = ["myst_nb", "sphinx_copybutton"]
exclude_patterns = ["notebooks/*"]

# The lessons as they were last run.
nb_execution_mode = "off"
nb_merge_streams = True
nb_number_source_lines = False
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
copybutton_selector = ".cell_input div.highlight pre, div.literal-block-wrapper pre, div.highlight-sh pre, div.highlight-bat pre"

# The reference: what is not ours has its own manual.
nitpick_ignore_regex = [("py:class", r"(?!fdl\.).*")]
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static", str(ROOT/"_build"/"sources"/"mathjax")]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_domain_indices = False
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": []}
html_theme_options = {
    "logo": {"text": project},
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 4,
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
    "github_url": f"https://github.com/{repository}" if repository else "",
}
copyright = f"{author}, Apache 2.0"
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}, "chtml": {"matchFontHeight": False, "scale": 1.1}}


def leave_formulas_alone(app, doctree):
    r"Sphinx would put a formula with a `\\` into `split`, where no `\tag` is allowed."
    for node in doctree.findall(lambda node: node.tagname == "math_block" and not node.get("no-wrap")):
        node["no-wrap"] = node["nowrap"] = True  # the name since Sphinx 8.2, and the one before
        node[0:] = [type(node[0])(rf"\[{node.astext()}\]")]


def setup(app): app.connect("doctree-read", leave_formulas_alone)
