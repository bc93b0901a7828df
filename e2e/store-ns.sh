#!/usr/bin/env bash
# store-ns.sh ROOT COMMAND...
#
# Runs COMMAND in a mount namespace of its own where /nix is ROOT/nix and every other top-level
# name is the host's. For what must be built in a real /nix/store; copying needs none of it
# (`--store local?root=ROOT` has the logical store /nix/store in ROOT/nix/store).
#
# As root it takes a mount namespace; as another user a user namespace too, in which the user is
# root. The host's file system sees ROOT alone, not even an empty /nix.
set -euo pipefail

die() { printf 'store-ns.sh: %s\n' "$*" >&2; exit 1; }

[ $# -ge 2 ] || die "usage: store-ns.sh ROOT COMMAND..."
PATH=$PATH:/usr/sbin:/sbin
for tool in unshare mount umount pivot_root; do
  command -v $tool > /dev/null || die "no $tool on this machine; as root: apt-get install util-linux mount"
done

root=$1
shift
mkdir -p "$root/nix/store" "$root/.ns"
root=$(cd "$root" && pwd)

how=(--mount --propagation private)
[ "$(id -u)" = 0 ] || how=(--user --map-root-user "${how[@]}")
unshare "${how[@]}" true 2> /dev/null ||
  die "this user cannot make a mount namespace here: run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces; in a container: CAP_SYS_ADMIN)"

exec unshare "${how[@]}" bash -euc '
  root=$1 cwd=$PWD new=$1/.ns
  shift
  mount -t tmpfs -o mode=755 none "$new"
  # rbind: in a user namespace the mounts below a directory cannot be taken apart.
  shopt -s dotglob
  for from in /*; do
    to=$new/${from##*/}
    [ "$from" != /nix ] || continue
    if [ -L "$from" ]; then ln -s "$(readlink "$from")" "$to"
    elif [ -d "$from" ]; then mkdir "$to" && mount --rbind "$from" "$to"
    elif [ -f "$from" ]; then : > "$to" && mount --bind "$from" "$to"
    fi
  done
  mkdir "$new/nix" "$new/.host"
  mount --rbind "$root/nix" "$new/nix"
  pivot_root "$new" "$new/.host"
  umount -l /.host
  rmdir /.host
  cd "$cwd"
  exec "$@"' store-ns "$root" "$@"
