#!/bin/sh
# Talks to an agent with nothing but curl: shows each frame, and approves what the agent asks for.
#
#     flux agent apply examples/agents/coder.yaml && flux agent start coder --mode api
#     FLUX_AUTH_TOKEN=any sh examples/agents/curl.sh "run echo hello" "hello"
#
# FLUX_API says where api mode listens. With auth off any token does; an empty one does not.
set -eu
API=${FLUX_API:-http://127.0.0.1:8080}
FRAMES=$(mktemp)
trap 'rm -f "$FRAMES"' EXIT

# post PATH BODY: show the frames as they come, and keep them.
post() {
    curl -sS -N --fail-with-body -X POST "$API$1" -d "$2" \
        -H "Authorization: Bearer $FLUX_AUTH_TOKEN" -H "Content-Type: application/json" \
        | while IFS= read -r line; do
            case $line in "" | :*) ;; *) printf '%s\n' "${line#data: }" ;; esac
        done | tee "$FRAMES"
}

# field NAME: the value of a string in the last frame that is read from standard input.
field() {
    sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | tail -n 1
}

quoted() {
    printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"
}

session=
for message in "$@"; do
    post "/chat${session:+?session=$session}" "{\"message\": $(quoted "$message")}"
    session=$(grep '"type":"session_id"' "$FRAMES" | field id)
    [ -n "$session" ] || exit 1
    while grep -q '"type":"approval_required"' "$FRAMES"; do
        question=$(tail -n 1 "$FRAMES" | sed 's/,"call".*//' | field id)
        post "/approval/$question?session=$session" '{"approved": true}'
    done
done
