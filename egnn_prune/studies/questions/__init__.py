"""The study: what pruning a pretrained potential costs, and when uncertainty pays.

The protocol is ``docs/study.md``. One module a question: its cells, what is found out in each, and
its primary comparisons.
"""
