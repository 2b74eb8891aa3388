#!/usr/bin/env bash
#SBATCH --job-name=tag2mask --ntasks-per-node=1
# Start Ray on the nodes of a Slurm allocation, run one command on it, and end Ray with the command:
#   sbatch --nodes 4 --cpus-per-task 16 --gpus-per-node 1 --time 12:00:00 deploy/slurm.sh tag2mask run --data ... --out ...
# Activate the environment first; sbatch passes it on. Manifest, images and output must be readable on every node.
# The same command resumes a run that reached its time limit.
#
# Nodes may be shared. So each job has ports and a temporary folder of its own, and only the processes that this script
# started are ended: `ray stop` and `ray symmetric-run` also end the Ray of other jobs of the same user.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: sbatch [OPTIONS] deploy/slurm.sh COMMAND" >&2; exit 2; }
nodes=${SLURM_JOB_NUM_NODES:?"error: not in a Slurm allocation; use sbatch"}
cpus=${SLURM_CPUS_PER_TASK:-1}
read -r ip _ <<<"$(hostname -I)" # this script runs on the first node
base=$((20000 + SLURM_JOB_ID % 2000 * 5)) # below the ports that Linux gives to clients
address=$ip:$base
# workers of Ray take any free port, not Ray's fixed range
common=(--block --disable-usage-stats --temp-dir "/tmp/ray-$SLURM_JOB_ID" --min-worker-port 0 --max-worker-port 0)

pids=()
end() {
  trap '' TERM INT
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
}
trap end EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

alive() {
  local pid
  for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done # with several, `kill` is content with one
}
# waits for a command to succeed while Ray runs
until_true() {
  local deadline=$((SECONDS + ${START_S:-300}))
  until "$@"; do
    alive && [ $SECONDS -lt $deadline ] || { echo "error: Ray did not start" >&2; exit 1; }
    sleep 1
  done
}
answers() { ray health-check --address "$address" >/dev/null 2>&1; }
complete() { [ "$(ray status --address "$address" 2>/dev/null | grep -c '^ 1 node_')" -gt "$nodes" ]; }

# no tasks on the head: it must survive what kills workers, so the first node has a worker too
ray start --head "${common[@]}" --num-cpus 0 --num-gpus 0 --node-ip-address "$ip" --port "$base" \
  --ray-client-server-port $((base + 1)) --dashboard-agent-listen-port $((base + 2)) --include-dashboard false &
pids+=($!)
until_true answers
# --overlap: a step of Slurm has its CPUs to itself by default
srun --overlap --nodes "$nodes" --ntasks "$nodes" --ntasks-per-node 1 --cpus-per-task "$cpus" --kill-on-bad-exit=0 \
  ray start --address "$address" "${common[@]}" --num-cpus "$cpus" --dashboard-agent-listen-port $((base + 3)) &
pids+=($!)
until_true complete

RAY_ADDRESS=$address "$@" &
job=$!
pids+=("$job")
wait "$job"
