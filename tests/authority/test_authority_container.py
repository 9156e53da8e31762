"""The container's recipe, without a container engine: its own command, as its user, where only /data can be written."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from authority_process import Process

from ascend_middleware.authority import sample_policy
from ascend_middleware.cli import main

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "examples" / "container" / "Dockerfile"


def instruction(name):
    return re.findall(rf"^{name} (.*)$", RECIPE.read_text(), re.MULTILINE)


def test_the_recipe_names_commands_and_options_that_exist(capsys):
    entry, command = json.loads(instruction("ENTRYPOINT")[0]), json.loads(instruction("CMD")[0])
    assert entry == ["ascend-middleware"] and command[0] == "authority"
    with pytest.raises(SystemExit):
        main(["authority", "--help"])
    known = capsys.readouterr().out
    assert all(word in known for word in command if word.startswith("--"))
    assert instruction("USER") == ["10001"] and instruction("VOLUME") == ["/data"]
    # The commands of its description, as the command line reads them.
    text = (RECIPE.parent / "README.md").read_text()
    for line in re.findall(r"ascend-authority (keys .*|pending .*)$", text, re.MULTILINE):
        assert line.startswith("keys issue --role ")


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="makes a read-only file system of its own, which needs root on Linux",
)
def test_its_command_runs_where_only_data_can_be_written(tmp_path):
    places = {name: tmp_path / name for name in ("etc", "tls", "data")}
    for place in places.values():
        place.mkdir()
    (places["etc"] / "policy.toml").write_text(sample_policy())
    issuer = trustme.CA()
    certificate = issuer.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(places["tls"] / "tls.key")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(places["tls"] / "tls.crt", append=True)
    issuer.cert_pem.write_to_path(tmp_path / "ca.pem")
    os.chown(places["data"], 10001, 10001)
    places["data"].chmod(0o700)
    os.chown(places["tls"] / "tls.key", 10001, 10001)
    # What the recipe names, at the places that this machine has; the port is any free one.
    moved = {"/etc/ascend": places["etc"], "/run/tls": places["tls"], "/data": places["data"]}
    command = json.loads(instruction("CMD")[0])[1:]
    for index, word in enumerate(command):
        for old, new in moved.items():
            if word.startswith(old + "/"):
                command[index] = word.replace(old, str(new), 1)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o111)
    sealed = (
        "set -e; mount --make-rprivate /; for place in $(awk '{print $2}' /proc/mounts | sort -u); do"
        " case $place in /proc*|/sys*|/dev*) ;; *) mount -o remount,ro,bind $place 2>/dev/null || true;; esac; done;"
        f" mount --bind {shlex.quote(str(places['data']))} {shlex.quote(str(places['data']))};"
        f" mount -o remount,rw,bind {shlex.quote(str(places['data']))};"
        " if touch /tmp/probe 2>/dev/null; then echo writable; exit 9; fi;"
        " exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs"
        # In an image everybody may read the interpreter; here it may be root's own.
        " --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search"
        ' --bounding-set=-all,+dac_read_search "$@"'
    )
    prefix = ("unshare", "--mount", "env", "PYTHONDONTWRITEBYTECODE=1", "sh", "-c", sealed, "sh")
    policy = command[command.index("--policy") + 1]
    rest = [word for index, word in enumerate(command) if word != "--policy" and command[index - 1] != "--policy"]
    with Process(policy, *rest, prefix=prefix, trust=tmp_path / "ca.pem", log=tmp_path / "log") as authority:
        authority.url = authority.url.replace("0.0.0.0", "127.0.0.1")
        key = authority.keys["user"]
        body = {"agent_id": "a", "action_type": "refund", "parameters": {"amount": 5000}}
        assert authority.call("/api/v1/actions/submit", key, body)[1]["status"] == "pending"
        assert authority.call("/api/v1/actions?sort=risk_score", key)[1]["total"] == 1
        assert authority.end(signal.SIGTERM) == 0
    owners = {path.stat().st_uid for path in places["data"].iterdir()}
    assert owners == {10001} and (places["data"] / "authority.db").stat().st_mode & 0o077 == 0
    assert subprocess.run(["mountpoint", "-q", places["data"]]).returncode != 0  # nothing of it is left behind
