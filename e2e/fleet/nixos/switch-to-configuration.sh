#!/bin/bash
# switch-to-configuration.sh TOPLEVEL ACTION
#
# Stands in for NixOS's switch-to-configuration: the same actions, order, lock, files in /run/nixos
# and exit codes, on a Debian whose units of /etc/static/systemd/system are a NixOS-like system's.
# What it leaves out: user units, sockets' services, mounts, re-executing systemd, and
# sysinit-reactivation.target.
#
#   0    done
#   1    usage, pre-switch check, boot loader
#   2    the activation script failed; the units were handled all the same
#   4    units failed; the system is switched. That the activation script failed, too, is in
#        its words alone
#   11   the lock is held; or logind does not answer, and the units that were stopped stay so
#        (the errno of that moment: EAGAIN)
#   100  the init interface changed: nothing was switched, but the boot entry is written
set -uo pipefail

toplevel=$1
action=${2:-}
export NIXOS_ACTION=$action SWITCH_PID=$$
say() { echo "$*" >&2; }
die() { say "$*"; exit 1; }
again() { say "$*"; exit 11; }

case $action in
  switch | boot | test | dry-activate | check) ;;
  *) die "Usage: $toplevel/bin/switch-to-configuration [check|switch|boot|test|dry-activate]" ;;
esac
[ "$(id -u)" = 0 ] || die "switch-to-configuration must be run as the root user"
[ -e /etc/NIXOS ] || die "This is not a NixOS installation!"

mkdir -p /run/nixos
exec 8> /run/nixos/switch-to-configuration.lock
flock -n 8 || again "Could not acquire lock" # at once, not by and by: nixpkgs#382797

# ---- pre-switch checks and inhibitors
if [ "${NIXOS_NO_CHECK:-}" != 1 ] && [ -x "$toplevel/pre-switch-check" ]; then
  "$toplevel/pre-switch-check" "$action" || die "Pre-switch checks failed"
fi
pairs() { grep -oE '"[^"]*":"[^"]*"' "$1/switch-inhibitors" 2> /dev/null; } # SYSTEM: "key":"value"
if [ "$action" != boot ] && [ "$action" != dry-activate ] && [ "${NIXOS_NO_CHECK:-}" != 1 ]; then
  inhibited=()
  while IFS= read -r pair; do # only what both systems have can differ
    old=$(pairs /run/current-system | grep -F "${pair%%\":*}\":") || continue
    [ "$old" = "$pair" ] || inhibited+=("$old -> $pair")
  done < <(pairs "$toplevel")
  if [ ${#inhibited[@]} -gt 0 ]; then
    say "There are changes to critical components of the system:"
    printf '%s\n' "${inhibited[@]}" >&2
    die "Pre-switch checks failed"
  fi
fi
[ "$action" != check ] || exit 0

# ---- boot loader
case $action in
  switch | boot) "$toplevel/install-bootloader" "$toplevel" || die "Failed to install bootloader" ;;
esac
[ "${NIXOS_NO_SYNC:-}" = 1 ] || sync -f /nix/store
[ "$action" != boot ] || exit 0

old_interface=$(cat /run/current-system/init-interface-version 2> /dev/null)
if [ -n "$old_interface" ] && [ "$old_interface" != "$(cat "$toplevel/init-interface-version")" ]; then
  say "Warning: the new NixOS configuration has an ‘init’ that is incompatible with the current configuration."
  say "The new configuration won't take effect until you reboot the system."
  exit 100
fi

# ---- what changes
declare -A stop=() start=() restart=() reload=() skip=()
declare -A was_active=()
for list in start restart reload; do # what an interrupted run meant to do
  [ -e /run/nixos/$list-list ] || continue
  while read -r unit; do
    case $list in start) start[$unit]=1 ;; restart) restart[$unit]=1 ;; reload) reload[$unit]=1 ;; esac
  done < /run/nixos/$list-list
done
says() { grep -qs "^$2\$" "$1"; } # FILE LINE
new_units=$toplevel/etc/systemd/system
while read -r unit _ active sub _; do
  was_active[$unit]=$active/$sub
  case $active in active | activating | reloading) ;; *) continue ;; esac
  old=/etc/systemd/system/$unit
  [ -L "$old" ] || continue
  case $(readlink "$old") in /etc/static/systemd/system/*) ;; *) continue ;; esac
  new=$new_units/$unit
  if [ ! -e "$new" ]; then
    says "$old" X-StopOnRemoval=false || stop[$unit]=1
  elif ! cmp -s "$old" "$new"; then
    if says "$new" X-ReloadIfChanged=true; then reload[$unit]=1
    elif says "$new" X-RestartIfChanged=false || says "$new" RefuseManualStop=true; then skip[$unit]=1
    elif says "$new" X-StopIfChanged=false; then restart[$unit]=1
    else stop[$unit]=1 start[$unit]=1
    fi
  fi
done < <(systemctl list-units --all --full --no-legend --plain)
start[multi-user.target]=1 # pulls in what the new system wants and nobody wanted before

names() { local n; for n; do echo "$n"; done | sort | paste -sd , | sed 's/,/, /g'; }
show() { # VERB UNIT...
  local verb=$1
  shift
  [ $# = 0 ] || say "$verb: $(names "$@")"
}
if [ "$action" = dry-activate ]; then
  show "would stop the following units" "${!stop[@]}"
  show "would NOT restart the following changed units" "${!skip[@]}"
  say "would activate the configuration..."
  "$toplevel/dry-activate"
  show "would reload the following units" "${!reload[@]}"
  show "would restart the following units" "${!restart[@]}"
  show "would start the following units" "${!start[@]}"
  exit 0
fi

# ---- do it; the lists are kept, so that the same run again takes up an interrupted one
status=0
keep() { # LIST UNIT...
  local list=/run/nixos/$1-list
  shift
  if [ $# = 0 ]; then rm -f "$list"; else printf '%s\n' "$@" > "$list"; fi
}
keep start "${!start[@]}"
keep restart "${!restart[@]}"
keep reload "${!reload[@]}"
show "stopping the following units" "${!stop[@]}"
if [ ${#stop[@]} -gt 0 ]; then systemctl stop -- "${!stop[@]}" || status=4; fi
show "NOT restarting the following changed units" "${!skip[@]}"

say "activating the configuration..."
"$toplevel/activate" || { say "Failed to run activate script"; status=2; }
systemctl reset-failed
systemctl daemon-reload || status=3
busctl --quiet call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager ListUsers ||
  again "Unable to list users with logind"

show "reloading the following units" "${!reload[@]}"
if [ ${#reload[@]} -gt 0 ]; then systemctl reload -- "${!reload[@]}" || status=4; fi
rm -f /run/nixos/reload-list
show "restarting the following units" "${!restart[@]}"
if [ ${#restart[@]} -gt 0 ]; then systemctl restart -- "${!restart[@]}" || status=4; fi
rm -f /run/nixos/restart-list
unset 'start[multi-user.target]'
show "starting the following units" "${!start[@]}"
systemctl start -- multi-user.target "${!start[@]}" || status=4
rm -f /run/nixos/start-list

# ---- how did it go?
sleep 0.25
failed=() started=()
while read -r unit _ active sub _; do
  if [ "$active" = failed ] || { [ "$sub" = auto-restart ] && [ "$(systemctl show --value --property=ExecMainStatus "$unit")" != 0 ]; }; then failed+=("$unit")
  elif [ "$active" = active ] && [ -z "${start[$unit]:-}" ]; then
    case ${was_active[$unit]:-} in active/*) ;; *) started+=("$unit") ;; esac
  fi
done < <(systemctl list-units --all --full --no-legend --plain)
show "the following new units were started" "${started[@]}"
if [ ${#failed[@]} -gt 0 ]; then
  show "warning: the following units failed" "${failed[@]}"
  systemctl status --no-pager --full --lines=3 -- "${failed[@]}" >&2
  status=4
fi
exit $status
