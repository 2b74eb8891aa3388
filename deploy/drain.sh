#!/usr/bin/env bash
# Wait for the notice that the cloud reclaims this spot node, then drain it: Ray places nothing new on it, and its loss
# counts as a preemption, of which a training survives any number.
# AWS gives notice two minutes before, Google 30 seconds. METADATA is the address of the metadata server.
set -u
metadata=${METADATA:-http://169.254.169.254}

exec 9>"${TMPDIR:-/tmp}/tag2mask-drain.lock"
flock -n 9 || exit 0 # one is waiting already

ask() { curl --silent --fail --noproxy '*' --max-time 2 "$@"; }

on_aws() {
  local token
  token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/latest/api/token") &&
    ask -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/spot/instance-action"
}

on_google() {
  [ "$(ask -H 'Metadata-Flavor: Google' "$metadata/computeMetadata/v1/instance/preempted")" = TRUE ]
}

until { on_aws && left_s=110; } || { on_google && left_s=25; }; do sleep "${POLL_S:-5}"; done
echo "reclaimed: draining this node, $left_s s left"
exec ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "spot notice" \
  --deadline-remaining-seconds "$left_s"
