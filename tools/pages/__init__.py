"""Parts of README.md, docs/pages and zoo/ that are written by programs: tools/readme.py and tools/refresh_zoo.py."""
