"""Tables and figures, from records alone: whoever has the records can make them anew, without data or networks.

Which records a grid asks for is `command_line`"s business; what is measured anew on subsets is `analysis`.
"""

from typing import TYPE_CHECKING

from lcmat.lazy import handed_on

if TYPE_CHECKING:
    from lcmat.reports.figures import save_figure
    from lcmat.reports.found import Found
    from lcmat.reports.table_text import markdown
    from lcmat.reports.tables import accuracy_tables

__all__ = ["Found", "accuracy_tables", "markdown", "save_figure"]

__getattr__, __dir__ = handed_on(
    __name__, {"Found": "found", "save_figure": "figures", "accuracy_tables": "tables", "markdown": "table_text"}
)
