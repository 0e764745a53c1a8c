"""Makes README.md from nbs/index.ipynb, with nbconvert (`nbdev-readme` would need Quarto).

    python scripts/readme.py [FOLDER]       FOLDER: where to write; the project's own folder if not given

A cell that starts with `#| echo: false` shows its output only. Pictures go to docs/readme/. A cell with
a picture says in `#| fig-alt: "..."` what it shows; the text may go on in lines that start with `#|`.
"""
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
PICTURES = "docs/readme"


def main(folder: Path) -> None:
    "Writes README.md and its pictures into `folder`."
    nb = nbformat.read(ROOT/"nbs"/"index.ipynb", as_version=4)
    nb.metadata.language_info = {"name": "python"}  # for the colours of the code blocks
    alts = {}
    for i, cell in enumerate(nb.cells):
        alt = re.search(r'^#\| fig-alt: "([^"]+)"', cell.source, re.M)
        if alt: alts[i] = re.sub(r"\n#\|\s*", " ", alt[1])
        if cell.source.startswith("#| echo: false"): cell.metadata.transient = {"remove_source": True}
        cell.source = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M)
    text, resources = MarkdownExporter().from_notebook_node(nb, {"unique_key": "readme", "output_files_dir": PICTURES})
    text = re.sub(r"\]\((\w+\.ipynb)\)", r"](nbs/\1)", text).replace("](../", "](")
    def with_alt(image: re.Match) -> str:
        i = int(image[2])
        if i not in alts: sys.exit(f'nbs/index.ipynb, cell {i} shows a picture: say what in `#| fig-alt: "..."`')
        return f"![{alts[i]}]({image[1]})"
    text = re.sub(rf"!\[png\]\(({PICTURES}/readme_(\d+)_\d+\.png)\)", with_alt, text)
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"^ +$", "", text, flags=re.M)).strip()
    (folder/PICTURES).mkdir(parents=True, exist_ok=True)
    for old in (folder/PICTURES).glob("*.png"): old.unlink()
    for name, content in resources["outputs"].items(): (folder/name).write_bytes(content)
    note = "<!-- Made from nbs/index.ipynb by `make export`; edit that. -->\n\n"
    (folder/"README.md").write_text(note + text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__": main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
