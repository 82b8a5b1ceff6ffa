"""Where corpora come from: public benchmarks, tables and folders of text → records with bare questions."""
