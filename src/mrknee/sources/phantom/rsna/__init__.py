"""Synthetic studies in the form of the data set of RSNA's knee challenge of 2026.

Facts about that data set (its files, columns, tags and frequencies) come from what public
repositories of its participants state; docs/background/phantom-rsna2026.md lists them. No data of
it was used.
"""
