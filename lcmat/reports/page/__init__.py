"""One HTML page of all that a folder of records holds: what was found, every cell, figures, picks and learned images.

`page.html` is a Jinja2 template; `page.css` and `page.js` are put into it, so that the page is one file.
"""

from lcmat.reports.page.build import Beside, write_page

__all__ = ["Beside", "write_page"]
