"""Corpora: records of questions and answers, the tokens that are made of them, and how answers are graded."""
