"""The embedded authority: policies, store, the core that answers requests, and its HTTP door."""

from .core import Authority
from .keys import Credential, Role
from .policy import PolicySet
from .sample import sample_policy
from .store import Store, default_database, issue_key

__all__ = ["Authority", "Credential", "PolicySet", "Role", "Store", "default_database", "issue_key", "sample_policy"]
