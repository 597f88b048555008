"""Reading what was trained: filters, tables, comparisons, plots, export and import."""
