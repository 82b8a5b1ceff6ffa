"""Where corpora come from: public benchmarks, tables, folders of text → records with bare questions."""
