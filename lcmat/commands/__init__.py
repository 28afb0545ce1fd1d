"""Command lines over the library, one a file: each has main(argv)."""
