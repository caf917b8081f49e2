#!/bin/bash
# An S3 server: moto, which keeps buckets in memory. env: S3_PORT=18600
#   Ranges, If-Match and If-None-Match are right. Signatures are not checked, but requests without
#   one get 403 for objects that are not public.
# `start` ends with status 77 when moto is not installed: `s3.sh install` puts it in a virtual
# environment below the user's cache; it needs python3 with venv, and pip's package index.
. "$(dirname "$0")/lib.sh"
VENV=${MOTO_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/keelboat-tests/moto}

do_install() {
  [ ! -x "$VENV/bin/moto_server" ] || return 0
  python3 -m venv "$VENV" >&2
  "$VENV/bin/pip" install -q --disable-pip-version-check 'moto[s3]==5.*' flask flask-cors >&2
}

do_start() {
  ports S3_PORT 18600 1
  spawn moto "$VENV/bin/moto_server" -H 127.0.0.1 -p "$S3_PORT"
  wait_for 60 port_open "$S3_PORT"
  emit S3_ENDPOINT "http://127.0.0.1:$S3_PORT"
}

if [ "${1:-}" = start ] && [ ! -x "$VENV/bin/moto_server" ]; then
  log "moto is not installed: run $0 install"
  exit 77
fi
main "$@"
