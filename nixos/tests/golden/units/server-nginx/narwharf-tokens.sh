#!/nix/store/…-bash-5.3p9/bin/bash
set -eu
umask 077
dir=/var/lib/narwharf/tokens.d
/nix/store/…-coreutils-9.11/bin/mkdir -p "$dir"
[ -e "$dir"/ci ] || /nix/store/…-narwharf-dev/bin/narwharf token new --config /nix/store/…-narwharf.toml \
  --name ci --scope push --scope promote:web \
   \
   --out "$dir"/ci

[ -e "$dir"/hosts ] || /nix/store/…-narwharf-dev/bin/narwharf token new --config /nix/store/…-narwharf.toml \
  --name hosts --scope follow:web \
  --host web-1 \
  --expires 90d --out "$dir"/hosts


