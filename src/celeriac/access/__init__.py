"""Who may do what: the Principal of every read and move made on somebody's behalf.

Pure values and checks, no I/O: the ledger takes a Principal as a required argument,
`web/auth.py` makes one of a token or a session cookie.
`docs/tour.md` follows one job through the files.
"""

from celeriac.access.principals import SYSTEM, Permission, Principal, Role
from celeriac.access.tokens import digest, faults_of, new_secret

__all__ = ["SYSTEM", "Permission", "Principal", "Role", "digest", "faults_of", "new_secret"]
