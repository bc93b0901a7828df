#!/nix/store/…-bash-5.3p9/bin/bash
set -eu
umask 077
dir=/var/lib/narwharf-pr/tokens.d
/nix/store/…-coreutils-9.11/bin/mkdir -p "$dir"
[ -e "$dir"/ci ] || /nix/store/…-narwharf-dev/bin/narwharf token new --config /nix/store/…-narwharf-pr.toml \
  --name ci --scope push \
   \
   --out "$dir"/ci


