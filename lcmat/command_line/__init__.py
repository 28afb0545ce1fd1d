"""From words to runs: flags, YAML files and grids; what they mean; and how long it will take. Argparse ends here."""
