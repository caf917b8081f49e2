#!/usr/bin/env bash
# How fast files come over loopback, each checked by SHA-256, beside clients that check nothing: one
# large file, many middle ones, very many small ones. See docs/benchmarks.md.
set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'TEXT'
usage: bench/staging.sh [-r REPEATS] [-d DIR] [-s] [-c] [KEELBOAT]

  -r REPEATS   rounds, each with every client once; the table has medians (5)
  -d DIR       where files come from and go to (/dev/shm): a disk would be what is measured
  -s           a tenth of the work, to see whether all runs
  -c           exit with status 1 when a limit is exceeded
  KEELBOAT     the program (target/release/keelboat)

nginx serves on a free port of 127.0.0.1. Of curl, wget2 and aria2c, those that are installed take part.
TEXT
}

repeats=5 room=/dev/shm small=no check=no
while getopts r:d:sch option; do
    case $option in
    r) repeats=$OPTARG ;;
    d) room=$OPTARG ;;
    s) small=yes ;;
    c) check=yes ;;
    h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
here=$(cd "$(dirname "$0")" && pwd)
keelboat=$(realpath "${1:-$here/../target/release/keelboat}")
[ -x "$keelboat" ] || { echo "no program at $keelboat: cargo build --release" >&2; exit 2; }
command -v nginx >/dev/null || { echo "nginx is not installed" >&2; exit 2; }

bench=$(mktemp -d "$room/staging.XXXXXX")
chmod 755 "$bench" # nginx may serve as another user
nginx_pid=
cleanup() {
    [ -z "$nginx_pid" ] || kill "$nginx_pid" 2>/dev/null || true
    rm -rf "$bench"
}
trap cleanup EXIT

scale=1
[ "$small" = no ] || scale=10
large_mib=$((1024 / scale)) middle=$((200 / scale)) little=$((10000 / scale))

# --- files and server ---------------------------------------------------------
mkdir -p "$bench/www/middle" "$bench/www/little" "$bench/log" "$bench/tmp"
head -c "${large_mib}M" /dev/urandom >"$bench/www/large"
python3 - "$bench/www" "$middle" "$little" <<'PY'
import os, sys
root, middle, little = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for i in range(middle):
    open(f"{root}/middle/{i}", "wb").write(os.urandom(1 << 20))
for i in range(little):
    open(f"{root}/little/{i}", "wb").write(os.urandom(4096))
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$bench/nginx.conf" <<CONF
daemon off; worker_processes 1; pid $bench/nginx.pid; error_log $bench/log/error warn;
events { worker_connections 512; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
  client_body_temp_path $bench/tmp; proxy_temp_path $bench/tmp; fastcgi_temp_path $bench/tmp;
  uwsgi_temp_path $bench/tmp; scgi_temp_path $bench/tmp;
  server { listen 127.0.0.1:$port; root $bench/www; }
}
CONF
nginx -c "$bench/nginx.conf" -p "$bench" &
nginx_pid=$!
base=http://127.0.0.1:$port
for _ in $(seq 100); do
    curl -s -o /dev/null "$base/little/0" && break
    sleep 0.1
done

urls() { # NAME COUNT
    for ((i = 0; i < $2; i++)); do echo "$base/$1/$i"; done
}
echo "$base/large" >"$bench/large.urls"
urls middle "$middle" >"$bench/middle.urls"
urls little "$little" >"$bench/little.urls"
# curl's own list: one process, one connection after another unless --parallel.
for set in large middle little; do
    awk '{ n = split($0, part, "/"); printf "url = \"%s\"\noutput = \"%s\"\n", $0, part[n] }' \
        "$bench/$set.urls" >"$bench/$set.curl"
done

# --- clients --------------------------------------------------------------------
# The floor: what arrives is written, nothing else. One connection, one large file.
cat >"$bench/raw.py" <<'PY'
import os, socket, sys
host, port, path, out = "127.0.0.1", int(sys.argv[1]), sys.argv[2], sys.argv[3]
s = socket.create_connection((host, port))
s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
buffer = bytearray(1 << 20)
n = s.recv_into(buffer)
end = buffer.index(b"\r\n\r\n") + 4
with open(out, "wb", buffering=0) as f:
    f.write(memoryview(buffer)[end:n])
    while n := s.recv_into(buffer):
        f.write(memoryview(buffer)[:n])
PY

run() { # CLIENT SET: into the current directory, which is empty
    case $1 in
    keelboat) "$keelboat" fetch --quiet --list "$bench/$2.urls" ;;
    curl) curl -s -f -K "$bench/$2.curl" ;;
    curl-parallel) curl -s -f -Z --parallel-max 16 -K "$bench/$2.curl" 2>/dev/null ;;
    wget2) wget2 -q -i "$bench/$2.urls" ;;
    aria2c) aria2c -q -j 16 -x 4 -i "$bench/$2.urls" ;;
    raw) python3 "$bench/raw.py" "$port" /large large ;;
    esac
}

clients() { # SET
    echo keelboat
    for tool in curl wget2 aria2c; do command -v "$tool" >/dev/null && echo "$tool"; done
    if [ "$1" = large ]; then echo raw; else echo curl-parallel; fi
}

# one CLIENT SET: wall seconds and CPU seconds of the client, without the server
one() {
    local dir=$bench/out
    rm -rf "$dir" && mkdir "$dir"
    ( cd "$dir" && export HOME=$bench && TIMEFORMAT='%R %U %S' && { time run "$1" "$2" >/dev/null; } 2>"$bench/time" ) ||
        { echo "$1 failed:" >&2; cat "$bench/time" >&2; exit 1; }
    local found
    found=$(find "$dir" -type f | wc -l)
    [ "$found" -ge "$(wc -l <"$bench/$2.urls")" ] || { echo "$1 brought $found files of $2" >&2; exit 1; }
    awk '{ print $1, $2 + $3 }' "$bench/time"
}

median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

failed=0
declare -A wall
for set in large middle little; do
    case $set in
    large) title="1 file of $large_mib MiB" ;;
    middle) title="$middle files of 1 MiB" ;;
    little) title="$little files of 4 KiB" ;;
    esac
    mapfile -t all < <(clients "$set")
    for ((round = 0; round < repeats; round++)); do
        for client in "${all[@]}"; do
            one "$client" "$set" >>"$bench/times.$set.$client"
        done
    done
    printf '\n%s\n%-14s %8s %8s %10s\n' "$title" client 'wall s' 'CPU s' 'keelboat x'
    for client in "${all[@]}"; do
        wall[$client]=$(awk '{ print $1 }' "$bench/times.$set.$client" | median)
        cpu=$(awk '{ print $2 }' "$bench/times.$set.$client" | median)
        ratio=$(awk -v a="${wall[$client]}" -v b="${wall[keelboat]}" 'BEGIN { printf "%.2f", a / b }')
        printf '%-14s %8s %8s %10s\n' "$client" "${wall[$client]}" "$cpu" "$ratio"
    done
    limit() { # CLIENT FACTOR: keelboat is at least FACTOR times as fast
        [ -n "${wall[$1]:-}" ] || return 0
        awk -v them="${wall[$1]}" -v us="${wall[keelboat]}" -v f="$2" 'BEGIN { exit !(them >= f * us) }' ||
            { echo "limit: keelboat is not $2 x as fast as $1"; failed=1; }
    }
    case $set in
    large) limit curl 1; limit wget2 1; limit raw 0.8 ;;
    middle) limit curl 1; limit wget2 1 ;;
    little) limit curl 3 ;;
    esac
done
[ "$check" = no ] || exit "$failed"
