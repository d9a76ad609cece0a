#!/usr/bin/env bash
# The nested protocol, end to end, for whoever has MRNet: check, train, evaluate, compare, report.
# What is fitted on which exams, what comes out and how to read it: docs/protocol.md.
#
# It can be stopped at any time (Ctrl-C, kill, a lost machine) and started again with the same
# words: what is complete is kept, a half-trained network goes on from its last whole epoch.
# Written for bash 3.2, which is what macOS has.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere and says where

usage() {
  cat <<'TEXT'
usage: runs/mrnet.sh DATA [OUT] [--smoke]

  DATA      MRNet's folder (MRNet-v1.0), or a data set laid out like it
  OUT       where everything goes (default: runs/mrnet, with --smoke runs/mrnet-smoke)
  --smoke   the same way in minutes: one seed, two epochs, tiny networks, few exams;
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
  settings=(--epochs 2 --max-exams 40 --network.encoder test_resnet --network.batchnorm trained
    --weights none --preparation.size 32 --preparation.crop 32 --batch-exams 4 --workers 0)
else
  seeds='0 1 2'
  what='full: seeds 0 1 2, recipes as they are'
  : "${out:=runs/mrnet}"
  settings=()
fi

data=$(cd "$data" && pwd)
mkdir -p "$out" || fail "$out can't be a folder: name another for OUT"
cd "$out" # from here on every name is seen from OUT, in messages and in what is compared
out=$(pwd)
[ -w . ] || fail "$out can't be written to: name another folder for OUT"

# The lock is held by this shell and by what it starts: it ends when the last of them does, however.
exec 9> .lock
# A killed training may take seconds to be gone, so this waits for them.
locked=0
"$python" - << 'PY' || locked=$?
import fcntl, sys, time

for _ in range(40):
    try:
        sys.exit(fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        time.sleep(0.25)
sys.exit(75)
PY
case $locked in
  0) ;;
  75) fail "$out is in use: another runs/mrnet.sh, or a training that one has left, still works there" ;;
  *) fail "$out can't be locked, $python says why above: name a folder for OUT on a disk of this machine" ;;
esac

# All that is said goes to log.txt too. tee ends when nobody writes to it any more, not by a signal.
pipe=$(mktemp -d)
mkfifo "$pipe/said"
(trap '' HUP INT TERM && exec tee -a log.txt) < "$pipe/said" &
logger=$!
exec < /dev/null > "$pipe/said" 2>&1
rm -r "$pipe"

say() { echo "== $*"; }

begun=no # whether the data set is good and the folder ours
finish() {
  local status=$?
  trap '' HUP INT TERM
  if [ $! != "$logger" ] && kill $! 2> /dev/null; then wait $! || true; fi # what work() began
  if [ $status -gt 128 ] || { [ $status != 0 ] && [ $begun = yes ]; }; then
    say "stopped; run the same command again to complete what is missing"
  fi
  exec > /dev/null 2>&1
  wait "$logger" || true
  exit $status
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# work WORDS...: mrknee WORDS. In the background, because bash hears no signal while it waits for a
# command in the foreground, and a training takes hours.
work() {
  "$mrknee" "$@" &
  wait $! || return
}

# run RUN WORDS...: trains RUN, or goes on with it, unless it is complete.
run() {
  local run=$1
  shift
  if [ -e "$run/scorecard.json" ]; then
    say "$run: trained before"
    return
  fi
  say "$run: training"
  # ${a[@]+"${a[@]}"}: in bash 3.2 an empty array counts as not set
  work train "$data" --out "$run" --resume --selection.part inner \
    --keep-every-epoch=false "$@" ${settings[@]+"${settings[@]}"}
  # whatever its exit status was, a training without a scorecard is not complete
  [ -e "$run/scorecard.json" ]
}

# up_to_date PAGE WORDS...: whether PAGE is there, and no predictions among WORDS are newer.
up_to_date() {
  local page=$1 word file
  shift
  [ -e "$page" ] || return 1
  for word in "$@"; do
    for file in ${word//,/ }; do
      if [ -f "$file" ] && [ "$file" -nt "$page" ]; then return 1; fi
    done
  done
}

# evaluate OUT PREDICTIONS WORDS...: writes OUT/report.html, unless it is up to date.
evaluate() {
  local to=$1
  shift
  if up_to_date "$to/report.html" "$@"; then
    say "$to: written before"
    return
  fi
  say "$to: evaluating"
  work evaluate "$1" "$data" --split valid --out "$to" "${@:2}"
}

# compare NAME PREDICTIONS...: writes comparison/NAME, unless it is up to date.
compare() {
  local to=comparison/$1
  shift
  if up_to_date "$to/comparison.txt" "$@"; then
    say "$to: compared before"
    return
  fi
  say "$to: comparing"
  mkdir -p "$to"
  work compare "$@" "$data" --split valid --out "$to" > "$to/.comparison.txt"
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
  local split finding seed name
  say "$(date '+%Y-%m-%d %H:%M:%S') runs/mrnet.sh: $data -> $out ($what)"

  say "checking the data set"
  work check "$data"
  for split in train valid; do
    for finding in $findings; do
      [ -e "$data/$split-$finding.csv" ] || fail "the protocol needs $data/$split-$finding.csv"
    done
  done
  work check "$data" --json > .check.json
  # only now: what ended before has made the folder nobody's
  echo "$what" > .protocol.txt
  remember protocol.txt .protocol.txt
  remember check.json .check.json

  begun=yes
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
  cat << TEXT
Where everything is, in $out:
  report/report.html                 the multi-task network, mean of its seeds, against the
                                     single-finding networks: open this first
  NAME/seedN/report/report.html      each network's own page; NAME is reference, default,
                                     abnormal, acl or meniscus
  comparison/systems/comparison.txt  what differs between the systems, tested
TEXT
  if [ $smoke = no ]; then
    echo "  comparison/seeds-*/comparison.txt  what differs between the seeds of one system, tested"
  fi
  echo "  check.json  log.txt                what the data set holds; everything that was said"
  if [ $smoke = yes ]; then
    echo "This was the smoke test: the way works, the numbers mean nothing."
  fi
}

protocol
