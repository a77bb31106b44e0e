"""Two calculators on the same structures: what differs, what got worse, and is either unsound?"""

from egnn_prune.audit.auditing import AuditReport, audit
from egnn_prune.audit.candidate import Candidate, calculator_of

__all__ = ["AuditReport", "Candidate", "audit", "calculator_of"]
