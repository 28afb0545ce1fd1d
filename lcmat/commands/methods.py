"""List the methods: what each needs and takes, and what vouches for it.

python -m lcmat methods            # all of them
python -m lcmat methods DUAL RS2   # some, with their options
python -m lcmat methods --table    # the table of methods/README.md
"""

from pathlib import Path

import methods
from lcmat.command_line import Parser
from lcmat.reports.certificates import Certificate, certificates_markdown, read_certificates

CERTIFICATES = Path(methods.__file__).with_name("certificates.csv")


def every() -> list[str]:
    """Return the names of all methods: of selection, of condensation, and samplers."""
    return [*methods.names(), *methods.condensers(), *methods.samplers()]


def main(argv: list[str]) -> int:
    """Print what is known of each method."""
    parser = Parser(prog="python -m lcmat methods", allow_abbrev=False, description="List the methods.")
    parser.add_argument("method", metavar="METHOD", nargs="*", help="some methods (default: all)")
    parser.add_argument("--table", action="store_true", help="print the table of methods/README.md")
    args = parser.parse_args(argv)
    known = read_certificates(CERTIFICATES)
    names = [methods.find(name).name for name in args.method] or list(known)
    if args.table:
        print(certificates_markdown([known[name] for name in names], "../"), end="")
        return 0
    print("\n\n".join(_in_words(known[name]) for name in names))
    return 0


def _in_words(certificate: Certificate) -> str:
    method = methods.find(certificate.method)
    kind = {"Method": "selection", "Condenser": "condensation", "Sampler": "drawn for each epoch"}[
        type(method).__name__
    ]
    needs = ", ".join(getattr(method, "needs", ())) or "nothing"
    options = ", ".join(f"{name} ({default})" for name, default in method.options.items()) or "none"
    lines = [
        f"{certificate.method}: {kind}; needs {needs}; options: {options}",
        f"  compared with: {certificate.oracle} ({certificate.test})",
        f"  its paper's result here: {certificate.reproduced}" + f" ({certificate.record})" * bool(certificate.record),
    ]
    return "\n".join(lines + [f"  not checked: {certificate.unchecked}"] * bool(certificate.unchecked))
