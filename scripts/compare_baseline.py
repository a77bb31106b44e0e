"""Compare ways of choosing channels with the dense baseline, over seeds.

``study=quick`` and ``study=full`` run the study of docs/study.md instead.
"""

import sys

from egnn_prune.cli.jobs import COMPARE, QUESTIONS

main = COMPARE

if __name__ == "__main__":
    words = [word.replace("study=", "form=", 1) for word in sys.argv[1:]]
    job = COMPARE if words == sys.argv[1:] else QUESTIONS
    sys.argv[1:] = words
    job()
