"""Tests of everything, following the packages file by file."""
