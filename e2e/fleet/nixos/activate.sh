#!/bin/bash
# activate.sh TOPLEVEL: what a NixOS-like system's `activate` does, at boot and in a switch.
#
# /etc/static is the system's etc, every file of it is a symlink in /etc (a file of Debian's in that
# place is replaced), what an earlier system had and this one has not goes. Then the snippet of the
# system, and /run/current-system. Ends with 1 when something failed, having done the rest.
set -uo pipefail
toplevel=$1
status=0
atomic() { # TARGET LINK
  ln -sfn "$1" "$2.tmp" && mv -T "$2.tmp" "$2"
}
etc=$(readlink -f "$toplevel/etc")
atomic "$etc" /etc/static || status=1
while IFS= read -r -d '' file; do
  # A link that leads to the same file is the right one already (and asking forks nothing).
  if [ -L "/etc/$file" ] && [ "/etc/$file" -ef "/etc/static/$file" ]; then continue; fi
  [ -d "/etc/${file%/*}" ] || case $file in */*) mkdir -p "/etc/${file%/*}" ;; esac
  atomic "/etc/static/$file" "/etc/$file" || status=1
done < <(cd "$etc" && find . ! -type d -printf '%P\0')
while IFS= read -r -d '' link; do
  [ -e "$link" ] || [ -L "$(readlink "$link")" ] || rm -f "$link"
done < <(find /etc -xdev -type l -lname '/etc/static/*' -print0)

if [ -x "$toplevel/activate-snippet" ]; then
  "$toplevel/activate-snippet" || { echo "Activation script snippet 'fleet' failed ($?)" >&2; status=1; }
fi
atomic "$toplevel" /run/current-system || status=1
exit $status
