#!/usr/bin/env bash
# make-closures.sh BIN OUT [ATTRIBUTE...]
#
# Builds attributes of closures.nix with the Nix programs in the folder BIN, in the store that the
# environment names (/nix/store inside store-ns.sh, or NIX_STORE_DIR and NIX_STATE_DIR), and writes
# OUT: lines `NAME=STORE PATH`, and `NAME_drv=` for its derivation. The output `dev` of `multi` is
# the attribute `multi.dev` and the name `multi_dev`.
#
# Without attributes: all of them, and a few paths that come from no derivation (toFile, addPath,
# add, addFlat, addRecursive, addSha1). Environment: SALT (0), SIZE_MB (500), FILES (20000).
set -euo pipefail

die() { printf 'make-closures.sh: %s\n' "$*" >&2; exit 1; }

[ $# -ge 2 ] || die "usage: make-closures.sh BIN OUT [ATTRIBUTE...]"
bin=$1 out=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
[ -x "$bin/nix-build" ] || die "no nix-build in $bin; nix-clients.sh brings it"
command -v openssl > /dev/null || die "no openssl on this machine; as root: apt-get install openssl"

salt=${SALT:-0}
export PATH=$bin:$PATH
export NIX_CONFIG="experimental-features = nix-command flakes ca-derivations
sandbox = false
build-users-group =
substituters =
builders =
${NIX_CONFIG:-}"

everything="c b a selfref wide multi multi.dev multi.doc dbg dbg.debug fod caC caB caPlain caMulti caMulti.dev caUser zoo latin singleFile singleExe singleLink many random medium compressible"
extra=
if [ $# -eq 0 ]; then
  set -- $everything
  extra=1
fi

arguments=(--argstr salt "$salt" --arg sizeMB "${SIZE_MB:-500}" --arg files "${FILES:-20000}")
attributes=()
for attribute; do attributes+=(-A "$attribute"); done

# Both programs print one line per attribute, in their order.
mapfile -t drvs < <(nix-instantiate "$here/closures.nix" "${arguments[@]}" "${attributes[@]}" 2> "$out.log" || true)
mapfile -t paths < <(nix-build --no-out-link "$here/closures.nix" "${arguments[@]}" "${attributes[@]}" 2>> "$out.log" || true)
if [ ${#drvs[@]} -ne $# ] || [ ${#paths[@]} -ne $# ]; then
  tail -n 20 "$out.log" >&2
  die "could not build all of: $*"
fi
i=0
for attribute; do
  name=${attribute/./_}
  printf '%s=%s\n%s_drv=%s\n' "$name" "${paths[i]}" "$name" "${drvs[i]%%!*}"
  i=$((i + 1))
done > "$out.new"

if [ -n "$extra" ]; then
  from=$(mktemp -d)
  trap 'rm -rf "$from"' EXIT
  mkdir "$from/add-path" "$from/add" "$from/add-recursive"
  for d in "$from"/*/; do echo "source $salt in ${d%/}" | sed "s#$from/##" > "$d/file"; ln -s file "$d/link"; done
  echo "flat $salt" > "$from/add-flat"
  {
    echo "toFile=$(nix eval --raw --impure --expr "builtins.toFile \"to-file\" \"text $salt\"")"
    echo "addPath=$(nix store add-path "$from/add-path")"
    echo "add=$(nix-store --add "$from/add")"
    echo "addFlat=$(nix-store --add-fixed sha256 "$from/add-flat")"
    echo "addRecursive=$(nix-store --add-fixed --recursive sha256 "$from/add-recursive")"
    echo "addSha1=$(nix-store --add-fixed sha1 "$from/add-flat")"
  } >> "$out.new" 2>> "$out.log"
fi
mv "$out.new" "$out"
