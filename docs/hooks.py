"""Pages link to files of the repository as `../../zoo/...`, which works where the repository is read.

In the site, copies of these files take their place.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()\.\./\.\./([^)#\s]+)")


def on_files(files, config):
    """Adds to the site each file that a page links to."""
    named = {path for page in files.documentation_pages() for _, path in LINK.findall(page.content_string)}
    for path in sorted(named):
        if not (ROOT / path).is_file():
            raise FileNotFoundError(f"{path}: a page links to it, and it is not there")
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links lead to these copies; the pages with such links are at the top of docs/pages."""
    return LINK.sub(r"\1files/\2", markdown)
