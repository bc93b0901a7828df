#!/nix/store/…-bash-5.3p9/bin/bash
set -eu
umask 077
key=/var/lib/narwharf/keys/cache.example.org-1.sec
[ -e "$key" ] && exit
/nix/store/…-coreutils-9.11/bin/mkdir -p "${key%/*}"
/nix/store/…-narwharf/bin/narwharf key generate cache.example.org-1 --out "$key" > "${key%.sec}.pub"

