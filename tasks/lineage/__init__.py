"""Which annotations are in which engine, and where an annotation went."""
