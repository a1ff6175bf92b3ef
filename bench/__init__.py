"""The side-by-side benchmark: `make bench` runs this package (README.md)."""
