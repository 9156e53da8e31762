#!/usr/bin/env bash
# An agent in curl: it waits where a person has to approve a request, and sends the very same one again.
#
#   bash curl_agent.sh http://127.0.0.1:8000/customers/7/refunds '{"amount": 5000}'
set -euo pipefail

url=$1 body=$2 origin=$(cut -d/ -f1-3 <<<"$1")
credentials='Authorization: Bearer refund-agent'

send() {
  curl -sS -w '\n%{http_code}' "$url" -H "$credentials" -H 'Content-Type: application/json' "$@" --data "$body"
}
field() { # the text of a field of a JSON object on standard input
  sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"
}

answer=$(send)
if [ "$(field type <<<"$answer")" = urn:ascend:problem:approval-required ]; then
  handle=$(field handle <<<"$answer")
  state=$(field state <<<"$answer")
  status_url=$(field status_url <<<"$answer")
  case $status_url in /[!/]*) ;; *) echo 'a status URL at another origin' >&2; exit 1 ;; esac
  echo 'on hold: a person has to approve this' >&2
  for ((waited = 0; waited < 600; waited++)); do
    [ "$state" = pending ] || break
    sleep 1
    state=$(curl -sS "$origin$status_url" -H "$credentials" | field state)
  done
  if [ "$state" != approved ]; then
    echo "not approved: $state" >&2
    exit 1
  fi
  answer=$(send -H "Ascend-Approval: $handle")
fi
sed '$d' <<<"$answer"
[[ ${answer##*$'\n'} = 2?? ]]
