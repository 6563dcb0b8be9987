"""One suite handed on as a file, and checked by whoever gets it: bundle -> verify -> recompute."""
