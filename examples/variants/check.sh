#!/usr/bin/env bash
# Checks what `keelboat run flow.toml` left in out/. Exit status 0: the result is right.
set -euo pipefail
cd "$(dirname "$0")"
export LC_ALL=C

fail() {
    echo "variants: $*" >&2
    exit 1
}

[ -s out/sites.tsv ] || fail "out/sites.tsv is missing or empty: run \`keelboat run flow.toml\` first"

# 86 and 85 with Debian 12's tools; other versions may differ by a few at the margin.
for isolate in pairs singles; do
    count=$(grep -c "^$isolate"$'\t' out/sites.tsv || true)
    [ "$count" -ge 80 ] && [ "$count" -le 92 ] ||
        fail "$isolate has $count variants, expected 80 to 92"
    echo "$isolate: $count variants"
done

# What any caller must find: a deletion and a substitution of each.
while IFS= read -r site; do
    grep -qxF "$site" out/sites.tsv || fail "this variant is missing: $site"
done <<'SITES'
pairs	353	GCTGAAATTGA	G
pairs	1104	C	A
singles	267	G	C
singles	2175	ATT	A
SITES

shared=$(cut -f 2- out/sites.tsv | sort | uniq -d | wc -l)
[ "$shared" -eq 0 ] || fail "$shared variants are in both isolates, expected none"

versions="$(bwa 2>&1 | sed -n 's/^Version: //p') $(samtools --version | sed -n '1s/.* //p') $(bcftools --version | sed -n '1s/.* //p')"
if [ "$versions" = "0.7.17-r1188 1.16.1 1.16" ]; then
    sha256sum --quiet --check <<'DIGEST' || fail "out/sites.tsv differs from what these tools gave before"
5fdd30469b19525c9187fc93df1f1b58a1b4a61a20fc3f15a5d91560bbb8e82f  out/sites.tsv
DIGEST
    echo "every site is as it was"
else
    echo "sites not compared one by one: other tools ($versions) than those of the reference"
fi
