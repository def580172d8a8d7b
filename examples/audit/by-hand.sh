#!/usr/bin/env bash
# Checks a proof of delivery with tools that know nothing of kapsel: sed, base64, sha256sum, perl for hex, and openssl.
#
#   examples/audit/by-hand.sh proof.json VKEY [BODY]
#
# VKEY is the log's public key as its owner gave it to you, by another way than the proof; BODY is the request body that you
# have. Each step is one of docs/auditing.md, in the same order. It is made to be read: kapsel-verify checks much more
# strictly. Needs OpenSSL 1.1.1 or newer.
set -euo pipefail
export LC_ALL=C.UTF-8
[ $# -ge 2 ] || { sed -n '2,4s/^# *//p' "$0" >&2; exit 2; }
proof=$1 vkey=$2 body=${3-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printable() { tr -cd '[:print:]\n'; }
say() { printf '%s\n' "$*" | printable; }
refuse() { printf 'REFUSED: %s\n' "$*" | printable >&2; exit 1; }
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$proof"; }
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$proof"; }
bytes() { perl -e 'print pack "H*", join "", @ARGV' -- "$@"; }
hex() { perl -0777 -ne 'print unpack "H*", $_'; }
sha256() { sha256sum | cut -d' ' -f1; }

grep -qs '"leaf_b64":"[^"]' "$proof" || refuse "$proof is not a whole proof on one line, as it is downloaded"
[[ $vkey == *+*+* ]] || refuse "$vkey is no vkey, which is name+id+key: give the text, not a file"

# 1. The leaf: what the log recorded, byte for byte. Read it: it says what is proven.
member leaf_b64 | base64 -d > "$work/leaf"
say "leaf       $(cat "$work/leaf")"

# 2. Its hash: SHA-256 of a zero byte and the leaf.
hash=$({ bytes 00; cat "$work/leaf"; } | sha256)
say "leaf hash  $hash"

# 3. The path: from the leaf's hash to the root, by hashes of a one byte, left, right.
checkpoint=$(printf '%b' "$(member checkpoint)")
origin=$(sed -n 1p <<< "$checkpoint") size=$(sed -n 2p <<< "$checkpoint")
signed_root=$(sed -n 3p <<< "$checkpoint" | base64 -d | hex)
index=$(number leaf_index)
# What is not a number must not get into arithmetic: bash would carry out what stands in it.
[[ $size =~ ^[1-9][0-9]{0,15}$ && $index =~ ^(0|[1-9][0-9]{0,15})$ ]] || refuse "size or index is not a number"
((index < size)) || refuse "the leaf has index $index in a tree of $size"
at=$index last=$((size - 1))
for sibling in $(sed -n 's/.*"inclusion_proof":\[\([^]]*\)\].*/\1/p' "$proof" | tr -d '"' | tr ',' ' '); do
    ((last > 0)) || refuse "the path is too long"
    while ((at % 2 == 0 && at == last)); do at=$((at / 2)) last=$((last / 2)); done # a lone node rises as it is
    if ((at % 2)); then hash=$(bytes 01 "$sibling" "$hash" | sha256); else hash=$(bytes 01 "$hash" "$sibling" | sha256); fi
    at=$((at / 2)) last=$((last / 2))
done
((last == 0)) || refuse "the path is too short"
say "root       $hash"
[ "$hash" = "$signed_root" ] || refuse "the checkpoint has the root $signed_root"

# 4. The key: its id is part of it, so that a typing error shows.
name=${vkey%%+*}
public=$(base64 -d <<< "${vkey#*+*+}" | hex)
key_id=$({ printf '%s\n' "$name"; bytes "$public"; } | sha256 | cut -c1-8)
[[ $vkey == "$name+$key_id+"* && $public == 01* && ${#public} -eq 66 ]] || refuse "$vkey is no Ed25519 vkey"
[ "$name" = "$origin" ] || refuse "the key is of $name, and the proof of $origin"

# 5. The signature: Ed25519 over the checkpoint's text, which ends before the empty line.
printf '%s\n' "$checkpoint" | sed '/^$/,$d' > "$work/text"
printf '%s\n' "$checkpoint" | sed '1,/^$/d' | while read -r _ _ signature; do
    line=$(base64 -d <<< "$signature" | hex)
    if [ "${line:0:8}" = "$key_id" ] && [ ${#line} -eq 136 ]; then bytes "${line:8}" > "$work/signature"; fi
done
[ -s "$work/signature" ] || refuse "the key $key_id has not signed"
{ bytes 302a300506032b6570032100 "${public:2}"; } > "$work/key.der" # an Ed25519 public key as OpenSSL reads it (RFC 8410)
openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key.der" -rawin -in "$work/text" -sigfile "$work/signature" \
    > "$work/said" 2>&1 || refuse "the signature of $key_id over the checkpoint does not hold"
say "signed     by $name, key $key_id: a tree of $size"

# 6. The body, if you have it: the leaf has its hash.
if [ -n "$body" ]; then
    [[ $(cat "$work/leaf") == *"\"payload_hash\":\"$(sha256 < "$body")\""* ]] || refuse "$body is not what was sent"
    say "body       $body is what was sent"
fi
say "Leaf $index is in the log that $origin signed."
