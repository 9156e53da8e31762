"""What every application of the conformance table shares: how a table is written down, and the settings of its guard."""

import posixpath

STATIC_FILES = {
    "static/public/logo.txt": "static.public",
    "static/private/secret.txt": "static.secret",
    "front/public/a.txt": "front.public",
    "front/private/secret.txt": "front.secret",
}


def rules(lines):
    """Build a table: each line is `METHODS /template -> action`, `-> exempt`, or `METHODS @endpoint -> action`."""
    table = []
    for line in lines:
        match, _, action = line.partition(" -> ")
        methods, _, target = match.partition(" ")
        rule = {"match": match} if not target.startswith("@") else {"match": f"{methods} /**", "endpoint": target[1:]}
        table.append({**rule, "exempt": True} if action == "exempt" else {**rule, "action_type": action})
    return table


def settings(url, table, **more):
    """What every guard is told."""
    return {
        "rules": {"rule": table},
        "api_url": url,
        "api_key": "ask_bypass_0123456789abcdef",
        "agent_id": "bypass",
        "agent_name": "Bypass",
        "report_outcomes": False,
        **more,
    }


def file_action(base, path):
    """Name what a handler reaches that joins a path from the request to a folder."""
    return "files.public" if posixpath.normpath(posixpath.join(base, path)).startswith(base) else "files.secret"


def body_rules(lines):
    """Build a table: each line is `METHODS /template -> source of the amount`, or no source."""
    table = []
    for line in lines:
        match, _, source = line.partition(" -> ")
        table.append({"match": match, "action_type": "transfer", **({"details": {"amount": source}} if source else {})})
    return table


def write_files(folder):
    """Put the static files that some applications serve below a folder."""
    for path, text in STATIC_FILES.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"HANDLER:{text}\n")
