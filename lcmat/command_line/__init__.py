"""From words to runs: flags, YAML files and grids; what they mean; and how long it will take. Argparse ends here.

What is done with a run is the business of `runs`, and what a command prints at its end of `commands` and `reports`.
"""

from typing import TYPE_CHECKING

from lcmat.lazy import handed_on

if TYPE_CHECKING:
    from lcmat.command_line.options import Parser
    from lcmat.command_line.program import run_command_line
    from lcmat.command_line.registry import Registry
    from lcmat.command_line.request import request_of
    from lcmat.command_line.settings import settings_of

__all__ = ["Parser", "Registry", "request_of", "run_command_line", "settings_of"]

__getattr__, __dir__ = handed_on(
    __name__,
    {
        "Parser": "options",
        "run_command_line": "program",
        "Registry": "registry",
        "request_of": "request",
        "settings_of": "settings",
    },
)
