#!/usr/bin/env bash
# The nested protocol, end to end, for whoever has MRNet: check, train, evaluate, compare, report.
# What is fitted on which exams, what comes out and how to read it: docs/protocol.md.
#
# It can be stopped at any time (Ctrl-C, a crash, a lost machine) and started again with the same
# words: what is complete is kept, a half-trained network goes on from its last whole epoch.
# Written for bash 3.2, which is what macOS has.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: runs/mrnet.sh DATA [OUT] [--smoke]

  DATA      MRNet's folder (MRNet-v1.0), or a data set laid out like it
  OUT       where everything goes (default: runs/mrnet, with --smoke runs/mrnet-smoke)
  --smoke   the same way in minutes: one seed, one epoch, tiny networks, few exams;
            its numbers mean nothing
TEXT
}

fail() {
  echo "runs/mrnet.sh: $1" >&2
  exit "${2:-1}"
}

data='' out='' smoke=no
for word in "$@"; do
  case $word in
    -h | --help) usage && exit 0 ;;
    --smoke) smoke=yes ;;
    -*) usage >&2 && fail "unknown option $word" 2 ;;
    *)
      if [ -z "$data" ]; then data=$word
      elif [ -z "$out" ]; then out=$word
      else usage >&2 && fail "one word too many: $word" 2; fi
      ;;
  esac
done
[ -n "$data" ] || { usage >&2 && fail "DATA is missing" 2; }
[ -d "$data" ] || fail "there is no folder $data"

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mrknee=$(command -v mrknee || true)
[ -n "$mrknee" ] || mrknee=$repository/.venv/bin/mrknee
[ -x "$mrknee" ] || fail "mrknee is not installed: run 'make install', or put it on the PATH"
mrknee=$(cd "$(dirname "$mrknee")" && pwd)/$(basename "$mrknee")
python=$(dirname "$mrknee")/python
[ -x "$python" ] || python=python3

findings='abnormal acl meniscus'
if [ $smoke = yes ]; then
  seeds='0'
  what='smoke: seed 0, tiny networks'
  : "${out:=runs/mrnet-smoke}"
  settings=(--epochs 1 --max-exams 40 --network.encoder test_resnet --network.batchnorm trained
    --weights none --preparation.size 32 --preparation.crop 32 --batch-exams 4 --workers 0)
else
  seeds='0 1 2'
  what='full: seeds 0 1 2, recipes as they are'
  : "${out:=runs/mrnet}"
  settings=()
fi

data=$(cd "$data" && pwd)
mkdir -p "$out"
cd "$out" # from here on every name is seen from OUT, in messages and in what is compared
out=$(pwd)

# The lock is held by this shell and by what it starts: it ends when the last of them does, however.
exec 9> .lock
# A killed training may take seconds to be gone, so this waits for them.
"$python" - << 'PY' || fail "$out is in use: another runs/mrnet.sh, or a training that one has left, still works there"
import fcntl, sys, time

for _ in range(40):
    try:
        sys.exit(fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        time.sleep(0.25)
sys.exit(1)
PY

say() { echo "== $*"; }

# run RUN WORDS...: trains RUN, or goes on with it, unless it is complete.
run() {
  local run=$1
  shift
  if [ -e "$run/scorecard.json" ]; then
    say "$run: trained before"
    return
  fi
  say "$run: training"
  if [ -d "$run" ] && [ ! -e "$run/settings.yaml" ]; then
    # killed before it had said what it is: nothing was trained, and --resume has nothing to go by
    rm -f "$run"/split.csv "$run"/.split.csv.* "$run"/.settings.yaml.*
    rmdir "$run"
  fi
  # ${a[@]+"${a[@]}"}: in bash 3.2 an empty array counts as not set
  "$mrknee" train "$data" --out "$run" --resume --selection.part inner \
    --keep-every-epoch=false "$@" ${settings[@]+"${settings[@]}"}
}

# evaluate OUT PREDICTIONS WORDS...: writes OUT/report.html, unless it is there.
evaluate() {
  local to=$1 predictions=$2
  shift 2
  if [ -e "$to/report.html" ]; then
    say "$to: written before"
    return
  fi
  say "$to: evaluating"
  "$mrknee" evaluate "$predictions" "$data" --split valid --out "$to" "$@"
}

# compare NAME PREDICTIONS...: writes comparison/NAME, unless it is there.
compare() {
  local to=comparison/$1
  shift
  if [ -e "$to/comparison.txt" ]; then
    say "$to: compared before"
    return
  fi
  say "$to: comparing"
  mkdir -p "$to"
  "$mrknee" compare "$@" "$data" --split valid --out "$to" > "$to/.comparison.txt"
  mv "$to/.comparison.txt" "$to/comparison.txt"
}

# joined "NAMES" "SEEDS": their predictions on valid as one model, files with commas between.
joined() {
  local name seed list=''
  for seed in $2; do
    for name in $1; do
      list=$list,$name/seed$seed/predictions-valid.csv
    done
  done
  echo "${list#,}"
}

# remember FILE NEW: keeps NEW as FILE; another FILE from an earlier start is a fault.
remember() {
  if [ -e "$1" ] && ! cmp -s "$1" "$2"; then
    diff "$1" "$2" || true
    rm -f "$2"
    fail "$out/$1 says that this folder belongs to something else (lines with < are from before): \
name another folder for OUT"
  fi
  mv "$2" "$1"
}

protocol() {
  say "$(date '+%Y-%m-%d %H:%M:%S') runs/mrnet.sh: $data -> $out ($what)"
  echo "$what" > .protocol.txt
  remember protocol.txt .protocol.txt

  say "checking the data set"
  "$mrknee" check "$data"
  "$mrknee" check "$data" --json > .check.json
  remember check.json .check.json

  local split seed finding name
  for split in train valid; do
    for finding in $findings; do
      [ -e "$data/$split-$finding.csv" ] || fail "the protocol needs $data/$split-$finding.csv"
    done
  done
  for seed in $seeds; do
    run "reference/seed$seed" --recipe reference --seed "$seed"
    run "default/seed$seed" --recipe default --seed "$seed"
    for finding in $findings; do
      run "$finding/seed$seed" --recipe reference --findings "$finding" --seed "$seed"
    done
    evaluate "reference/seed$seed/report" "$(joined reference "$seed")" \
      --model "reference/seed$seed" --against "$(joined "$findings" "$seed")"
    for name in default $findings; do
      evaluate "$name/seed$seed/report" "$(joined "$name" "$seed")" --model "$name/seed$seed"
    done
  done

  local reference default singles each
  reference=$(joined reference "$seeds")
  default=$(joined default "$seeds")
  singles=$(joined "$findings" "$seeds")
  evaluate report "$reference" --against "$singles"
  compare systems "$reference" "$singles" "$default"
  if [ "$seeds" != 0 ]; then
    for name in reference default "$findings"; do
      each=()
      for seed in $seeds; do each+=("$(joined "$name" "$seed")"); done
      if [ "$name" = "$findings" ]; then name=singles; fi
      compare "seeds-$name" "${each[@]}"
    done
  fi
  summary
}

summary() {
  say "complete"
  cat comparison/systems/comparison.txt
  cat <<TEXT
Where everything is, in $out:
  report/report.html                 the multi-task network, mean of its seeds, against the
                                     single-finding networks: open this first
  NAME/seedN/report/report.html      each network's own page; NAME is reference, default,
                                     abnormal, acl or meniscus
  comparison/*/comparison.txt        what differs, tested: systems, and seeds among themselves
  check.json  log.txt                what the data set holds; everything that was said
TEXT
  if [ $smoke = yes ]; then
    echo "This was the smoke test: the way works, the numbers mean nothing."
  fi
}

main() {
  trap 's=$?; [ $s = 0 ] || say "stopped; run the same command again to complete what is missing"
    exit $s' EXIT
  protocol
}

main 2>&1 < /dev/null | tee -i -a log.txt
