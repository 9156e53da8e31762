"""The embedded authority: policies, store, the core that answers requests, and its HTTP door."""

from .core import Authority
from .keys import Credential, Role
from .policy import PolicySet
from .policy.policy_file import load_policy, parse_policy, sample_policy
from .store.store import Store, default_database, issue_key

__all__ = [
    "Authority",
    "Credential",
    "PolicySet",
    "Role",
    "Store",
    "default_database",
    "issue_key",
    "load_policy",
    "parse_policy",
    "sample_policy",
]
