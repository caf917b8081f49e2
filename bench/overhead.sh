#!/usr/bin/env bash
# What an engine costs beside the work: many tasks `echo i > o/i`, run once from nothing and once
# with nothing left to do, by ninja, make and Keelboat in turn. See docs/benchmarks.md.
set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'TEXT'
usage: bench/overhead.sh [-n TASKS] [-r REPEATS] [-p PLANNED] [-j JOBS] [-c] [KEELBOAT]

  -n TASKS     tasks to run (10000)
  -r REPEATS   rounds, each with every tool once; the table has medians (3)
  -p PLANNED   tasks to plan without running them (100000); 0: none
  -j JOBS      tasks at one time (2)
  -c           exit with status 1 when a limit is exceeded
  KEELBOAT     the program (target/release/keelboat); without it only the peers are measured
TEXT
}

tasks=10000 repeats=3 planned=100000 jobs=2 check=no
while getopts n:r:p:j:ch option; do
    case $option in
    n) tasks=$OPTARG ;;
    r) repeats=$OPTARG ;;
    p) planned=$OPTARG ;;
    j) jobs=$OPTARG ;;
    c) check=yes ;;
    h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
keelboat=${1:-$(dirname "$0")/../target/release/keelboat}

tools=()
for tool in ninja make; do
    command -v "$tool" >/dev/null && tools+=("$tool")
done
if [ -x "$keelboat" ]; then
    keelboat=$(realpath "$keelboat")
    tools+=(keelboat-foreach keelboat-tables)
else
    echo "no program at $keelboat: only the peers are measured" >&2
fi

bench=$(mktemp -d)
trap 'rm -rf "$bench"' EXIT

# `each COUNT TEXT`: TEXT for each number from 1 to COUNT, which stands in the place of `@`.
each() {
    awk -v count="$1" -v text="$2" 'BEGIN {
        for (i = 1; i <= count; i++) { line = text; gsub(/@/, i, line); print line }
    }'
}

# The same commands for each tool: `write_plan TOOL COUNT`.
write_plan() {
    case $1 in
    ninja)
        # shellcheck disable=SC2016 # $i is ninja's.
        printf '%s\n' 'rule write' '  command = echo $i > o/$i'
        each "$2" 'build o/@: write\n  i = @'
        ;;
    make)
        printf '.PHONY: all\nall: '
        seq "$2" | awk '{ printf " o/%s", $1 } END { print "" }'
        each "$2" 'o/@:\n\techo @ > o/@'
        ;;
    keelboat-foreach)
        cat <<TOML
[workflow]
name = "overhead"

[task.write]
foreach = { i = { range = [1, $(($2 + 1))] } }
outputs = { out = "o/{{ i }}" }
run = "echo {{ i }} > {{ outputs.out }}"
TOML
        ;;
    keelboat-tables)
        printf '[workflow]\nname = "overhead"\n'
        each "$2" '\n[task.write-@]\noutputs = { out = "o/@" }\nrun = "echo @ > {{ outputs.out }}"'
        ;;
    esac
}

plan_file() {
    case $1 in
    ninja) echo build.ninja ;;
    make) echo Makefile ;;
    *) echo flow.toml ;;
    esac
}

run_tool() {
    case $1 in
    ninja) ninja -j "$jobs" ;;
    make) make -s -j "$jobs" ;;
    *) "$keelboat" run flow.toml -j "$jobs" ;;
    esac >"$bench/log" 2>&1
}

plan_tool() {
    case $1 in
    ninja) set -- ninja -n ;;
    make) set -- make -n ;;
    *) set -- "$keelboat" plan flow.toml ;;
    esac
    "${peak_of[@]}" "$@" >"$bench/log" 2>"$bench/err"
}

# `measure NAME COMMAND…` appends "wall cpu", in seconds, to the file NAME. The shell's `time`
# counts the whole tree of processes, as far as each waits for its children.
measure() {
    local into=$bench/$1 TIMEFORMAT='%R %U %S' figures
    shift
    if ! { figures=$({ time "$@"; } 2>&1); }; then
        echo "failed: $*" >&2
        cat "$bench/log" >&2
        exit 1
    fi
    awk '{ print $1, $2 + $3 }' <<<"$figures" >>"$into"
}

complain() {
    echo "$*" >&2
    exit 1
}

# One tool, from nothing and again, with proof that it did the work and then did none.
round() {
    local tool=$1
    rm -rf "$bench/project"
    mkdir -p "$bench/project/o"
    cd "$bench/project"
    write_plan "$tool" "$tasks" >"$(plan_file "$tool")"
    measure "$tool.cold" run_tool "$tool"
    [ "$(find o -type f | wc -l)" -eq "$tasks" ] && [ "$(cat "o/$tasks")" = "$tasks" ] ||
        complain "$tool did not write all files"
    touch "$bench/mark"
    measure "$tool.rerun" run_tool "$tool"
    [ -z "$(find o -type f -newer "$bench/mark" | head -n 1)" ] ||
        complain "$tool ran tasks although there was nothing to do"
    cd "$bench"
}

# `median FILE COLUMN`
median() {
    sort -n -k "$2,$2" "$bench/$1" | awk -v column="$2" '
        { value[NR] = $column }
        END { printf "%.3f", (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'
}

# `ratio A B`: A / B with two digits, or `-`.
ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'
}

per_task() {
    awk -v seconds="$1" -v tasks="$tasks" 'BEGIN { printf "%.3f", 1000 * seconds / tasks }'
}

exceeded=no
# `limit WHAT VALUE MAXIMUM`
limit() {
    [ "$2" != - ] || return 0
    if awk -v value="$2" -v maximum="$3" 'BEGIN { exit !(value <= maximum) }'; then
        echo "- $1: $2, at most $3: holds"
    else
        echo "- $1: $2, at most $3: **exceeded**"
        exceeded=yes
    fi
}

peak_of=()
if [ -x /usr/bin/time ]; then
    peak_of=(/usr/bin/time -f 'peak %M')
fi

for ((i = 0; i < repeats; i++)); do
    for tool in "${tools[@]}"; do
        round "$tool"
    done
done

echo "$tasks tasks, $jobs at one time, medians of $repeats rounds; CPU is user and system time of all processes"
echo
echo "| tool | first run, wall s | CPU s | CPU ms a task | × ninja | rerun, wall s | × ninja | rerun, CPU s | × ninja |"
echo "|---|---|---|---|---|---|---|---|---|"
has_ninja=no
[ ! -e "$bench/ninja.cold" ] || has_ninja=yes
declare -A cpu_ratio rerun_ratio rerun_cpu_ratio
for tool in "${tools[@]}"; do
    cold_wall=$(median "$tool.cold" 1) cold_cpu=$(median "$tool.cold" 2)
    rerun_wall=$(median "$tool.rerun" 1) rerun_cpu=$(median "$tool.rerun" 2)
    if [ "$has_ninja" = yes ]; then
        cpu_ratio[$tool]=$(ratio "$cold_cpu" "$(median ninja.cold 2)")
        rerun_ratio[$tool]=$(ratio "$rerun_wall" "$(median ninja.rerun 1)")
        rerun_cpu_ratio[$tool]=$(ratio "$rerun_cpu" "$(median ninja.rerun 2)")
    else
        cpu_ratio[$tool]=- rerun_ratio[$tool]=- rerun_cpu_ratio[$tool]=-
    fi
    echo "| $tool | $cold_wall | $cold_cpu | $(per_task "$cold_cpu") | ${cpu_ratio[$tool]} | $rerun_wall | ${rerun_ratio[$tool]} | $rerun_cpu | ${rerun_cpu_ratio[$tool]} |"
done

declare -A plan_wall plan_peak
if [ "$planned" -gt 0 ]; then
    echo
    echo "Planning $planned tasks without running them:"
    echo
    echo "| tool | wall s | peak MiB |"
    echo "|---|---|---|"
    for tool in "${tools[@]}"; do
        rm -rf "$bench/project"
        mkdir -p "$bench/project/o"
        cd "$bench/project"
        write_plan "$tool" "$planned" >"$(plan_file "$tool")"
        measure "$tool.plan" plan_tool "$tool"
        plan_wall[$tool]=$(median "$tool.plan" 1)
        plan_peak[$tool]=$(awk '$1 == "peak" { printf "%d", $2 / 1024 }' "$bench/err")
        echo "| $tool | ${plan_wall[$tool]} | ${plan_peak[$tool]:--} |"
        cd "$bench"
    done
fi

if [ -x "$keelboat" ]; then
    echo
    for tool in keelboat-foreach keelboat-tables; do
        limit "$tool, CPU of the first run × ninja" "${cpu_ratio[$tool]}" 1.5
        limit "$tool, wall time of the rerun × ninja" "${rerun_ratio[$tool]}" 3
        limit "$tool, CPU of the rerun × ninja" "${rerun_cpu_ratio[$tool]}" 3
        limit "$tool, plan of $planned tasks, s" "${plan_wall[$tool]:--}" 2
        limit "$tool, plan of $planned tasks, MiB" "${plan_peak[$tool]:--}" 1024
    done
fi
[ "$check" = no ] || [ "$exceeded" = no ]
