# Helpers shared by the service scripts. Sourced by them, never run.
#
#   NAME.sh install      install the software (needs root for apt); idempotent
#   NAME.sh start DIR    start; state, logs and pids go under DIR; prints KEY=VALUE
#   NAME.sh stop DIR     stop what `start` recorded in DIR/pids, nothing else
#   NAME.sh env DIR      print the KEY=VALUE lines again
#
# The counter for free ports lies in $SVC_TOOLS.
set -euo pipefail
umask 022
SVC_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SVC_TOOLS=${SVC_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/svc-tools}
PATH=$PATH:/usr/sbin:/sbin

log() { echo "${0##*/}: $*" >&2; }
die() { log "$*"; exit 1; }

# --- install ---------------------------------------------------------------
# apt_install PKG...: install what is missing, without starting any daemon.
apt_install() {
  local p missing=() policy=/usr/sbin/policy-rc.d made=
  for p; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q ' installed$' || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; made=1; }
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
    install -y --no-install-recommends "${missing[@]}" >&2 || { [ -z "$made" ] || rm -f $policy; return 1; }
  [ -z "$made" ] || rm -f $policy
}

# --- processes ---------------------------------------------------------------
# The start time tells a recorded process from another one with a reused pid.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20 || true; }

# record NAME PID: `stop` will end this process and its descendants.
record() { echo "$1 $2 $(start_time "$2")" >>"$DIR/pids"; }

# spawn NAME CMD...: run in the background, in its own session; logs to DIR/log/NAME.out
spawn() {
  local name=$1; shift
  setsid "$@" >>"$DIR/log/$name.out" 2>&1 </dev/null &
  record "$name" $!
}

is_ours() { [ -n "$2" ] && [ "$(start_time "$1")" = "$2" ]; }
# state Z: ended, but its parent has not reaped it
is_running() { is_ours "$1" "$2" && ! grep -q '^[^)]*) Z' "/proc/$1/stat" 2>/dev/null; }

# descendants PID: all below it, deepest first
descendants() {
  local c
  for c in $(ps -o pid= --ppid "$1" 2>/dev/null); do descendants "$c"; echo "$c"; done
}

# end_pid PID START: TERM it, its descendants get KILL if still there after 10 s.
end_pid() {
  local pid=$1 start=$2 i p st kids=()
  is_ours "$pid" "$start" || return 0
  for p in $(descendants "$pid"); do st=$(start_time "$p"); [ -z "$st" ] || kids+=("$p $st"); done
  kill -TERM "$pid" 2>/dev/null || true
  for i in $(seq 100); do is_running "$pid" "$start" || break; sleep 0.1; done
  for p in "$pid $start" ${kids[@]+"${kids[@]}"}; do
    set -- $p
    is_running "$1" "$2" && kill -KILL "$1" 2>/dev/null || true
  done
}

# end_named NAME: end one recorded process and forget it.
end_named() {
  local name pid start
  while read -r name pid start; do
    [ "$name" != "$1" ] || end_pid "$pid" "$start"
  done <"$DIR/pids"
  sed -i "/^$1 /d" "$DIR/pids"
}

stop_all() {
  local name pid start
  [ -e "$DIR/pids" ] || return 0
  tac "$DIR/pids" | while read -r name pid start; do end_pid "$pid" "$start" || true; done
  rm -f "$DIR/pids" "$DIR/env"
}

# --- ports, readiness, output ------------------------------------------------
# ports VAR DEFAULT [COUNT]: sets VAR to itself, else DEFAULT; "auto" takes COUNT free
# ports in a row, from a counter that keeps concurrent starts apart.
ports() {
  local v=${!1:-$2} n=${3:-1}
  [ "$v" != auto ] || until v=$(next_ports "$n"); ! any_open "$v" "$n"; do :; done
  ! any_open "$v" "$n" || die "a port in $v..$((v + n - 1)) is taken (set $1=N or $1=auto)"
  printf -v "$1" %s "$v"
}
next_ports() (
  mkdir -p "$SVC_TOOLS"
  exec 9<>"$SVC_TOOLS/next-port"; flock 9
  read -r v <&9 || v=$((20000 + RANDOM % 9000))
  [ $((v + $1)) -lt 30000 ] || v=20000
  echo $((v + $1)) >"$SVC_TOOLS/next-port"
  echo "$v"
)
port() { ports "$1" "$2" 1; }
any_open() { local i; for ((i = $1; i < $1 + $2; i++)); do ! port_open "$i" || return 0; done; return 1; }
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_for SECONDS CMD...: until it succeeds; gives up early when a recorded process has ended
wait_for() {
  local end=$((SECONDS + $1)) what n=0; shift; what=$*
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] && { [ $((++n % 10)) != 0 ] || all_running; } || { log "gave up waiting for: $what"; return 1; }
    sleep 0.1
  done
}
all_running() {
  local name pid start
  while read -r name pid start; do
    is_running "$pid" "$start" || { log "$name has ended, see $DIR/log/$name.out"; return 1; }
  done <"$DIR/pids"
}

# emit KEY VALUE: a line for DIR/env, printed when all is up; a shell can eval these
# lines, a test can split them at the first '='
emit() { printf '%s=%s\n' "$1" "$2" >>"$DIR/env"; }

# make_ca DIR: ca.crt, server.crt/.key for localhost and 127.0.0.1 (openssl)
make_ca() (
  mkdir -p "$1"; cd "$1"; [ ! -e server.crt ] || exit 0
  exec 2>openssl.log
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=Test CA" -keyout ca.key -out ca.crt
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout server.key -out server.csr
  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >ext
  openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out server.crt
  chmod 600 ca.key server.key
)

# --- entry -------------------------------------------------------------------
# main "$@": calls do_install / do_start / do_stop (default stop_all) / do_VERB.
main() {
  local verb=${1:-}
  [ -n "$verb" ] || die "usage: install | start DIR | stop DIR | env DIR"
  if [ "$verb" = install ]; then do_install; return; fi
  [ -n "${2:-}" ] || die "$verb needs DIR"
  mkdir -p "$2"; DIR=$(cd "$2" && pwd); shift 2
  case $verb in
    start)
      if [ -e "$DIR/env" ]; then
        while read -r _ p s; do is_ours "$p" "$s" && die "already started in $DIR"; done <"$DIR/pids"
      fi
      rm -f "$DIR/pids" "$DIR/env"; mkdir -p "$DIR/log"; touch "$DIR/pids"
      trap '[ $? = 0 ] || { tail -n 5 "$DIR"/log/*.out >&2; stop_all; }' EXIT
      do_start "$@"
      trap - EXIT
      cat "$DIR/env" || true ;;
    stop) if declare -F do_stop >/dev/null; then do_stop "$@"; else stop_all; fi ;;
    env) cat "$DIR/env" ;;
    *) declare -F "do_$verb" >/dev/null || die "no such verb: $verb"; "do_$verb" "$@" ;;
  esac
}
