"""Makes `fdl/` and README.md from the notebooks, cleans the notebooks, and says what that changed: `make export`.

    python scripts/export.py
"""
import subprocess
import sys
from pathlib import Path

import readme

ROOT = readme.ROOT


def made() -> dict[str, bytes]:
    "What an export may write: file names with their contents."
    paths = [*ROOT.glob("fdl/*.py"), *ROOT.glob("nbs/*.ipynb"), ROOT/"README.md", *(ROOT/readme.PICTURES).glob("*.png")]
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}


def main() -> None:
    before = made()
    for command in ("nbdev-export", "nbdev-clean"): subprocess.run([Path(sys.executable).parent/command], cwd=ROOT, check=True)
    readme.main(ROOT)
    after = made()
    changed = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    print(f"Changed: {', '.join(changed)}." if changed else "Nothing changed: fdl/ and README.md already are what the notebooks say.",
          "(A notebook counts as it was last saved.)")


if __name__ == "__main__":
    try: main()
    except subprocess.CalledProcessError as error: sys.exit(error.returncode)
