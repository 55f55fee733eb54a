"""Kernels for one backend, each beside a portable twin in the parent package; a test holds the two equal."""
