"""A commented policy file to start from."""

from __future__ import annotations

from typing import Final

__all__ = ["sample_policy"]


def sample_policy() -> str:
    """Return a commented policy file to start from."""
    return _SAMPLE


_SAMPLE: Final = """\
# What the embedded authority decides. Restart it after a change.

# Every action gets a risk score from 0 to 100, from its type and its risk indicators.
# Where no policy decides, the score does: below `pending` approved, from `denied` denied, a person in between.
[thresholds]
pending = 60
denied = 90

# A policy applies to the listed action types ("database_*" stands for all that begin so; without a list: to all)
# when its condition holds. The condition is CEL (Common Expression Language) on `action`, as it was submitted:
# action.agent_id, action.resource, action.action_details.amount, action.context, action.risk_indicators ...
# Where several match, the strictest wins. A condition that cannot be evaluated denies, so ask first for what may be
# missing: has(action.action_details.amount) && ... Frameworks send money as text ("5000.00"); number(...) reads both.
[[policy]]
name = "large refunds need a person"
action_types = ["transaction", "refund"]
when = "has(action.action_details.amount) && number(action.action_details.amount) > 1000"
decision = "pending"    # approved | pending | denied
risk_score = 75
reason = "refund above 1000"

[[policy]]
name = "reading is fine"
action_types = ["data_access", "database_read", "file_read"]
decision = "approved"

[[policy]]
name = "nobody drops a schema"
action_types = ["database_schema"]
decision = "denied"
reason = "schemas change by migration only"

# Who must approve a pending action, by risk level (low, medium, high from 60, critical from 85), and until when; after
# that it is denied. Without a table one admin is enough, and nobody ever decides about what they submitted themselves.
[approvals]
expires_after = "7d"

# [approvals.critical]
# count = 2                              # so many different people
# approvers = ["alice", "bob", "carol"]  # the names of their admin keys

# A smart rule is a condition and what is done where it holds.
# [[smart_rule]]
# name = "production needs a person"
# condition = "has(action.context.environment) && action.context.environment == 'production'"
# action = "require_approval"    # allow | require_approval | deny

# MCP servers and models that actions may name; one that neither this file nor the database has is refused.
# [[mcp_server]]
# name = "filesystem"
# blocked_tools = ["delete_file"]
# tool_risks = { write_file = 70 }    # actions with the tool score at least so much
#
# [[model]]
# id = 1
# name = "assistant-large"
# compliance_status = "approved"    # approved | partially_approved | pending | denied

# Requests a minute for each key, 0 for no limit; and failed sign-ins a minute for each address.
# [limits]
# submit = 1000
# report = 3000    # outcomes and the like
# read = 12000     # one thing: a status, an agent's commands
# list = 300
# analytics = 100
# admin = 50
# failed_sign_ins = 5
#
# [[key_limit]]
# key = "ci"    # a key's name, or its number
# submit = 20

# Tokens of an identity provider, RS256. They must name role and tenant.
# [jwt]
# public_key_file = "provider.pem"
# issuer = "https://id.example.com"
# audience = "ascend"

# [[resource_classification]]
# resource_type = "database"
# sensitivity_level = "high"
# compliance_tags = ["GDPR"]
"""
