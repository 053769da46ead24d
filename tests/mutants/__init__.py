"""Mutants: copies of the library with one defect each, which the tests have to notice."""
