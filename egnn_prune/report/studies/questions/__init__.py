"""Tables, answers and figures of the study's questions; see ``docs/study.md``."""
