#!/bin/sh
# reap.sh RUN: waits for the end of its standard input, then takes away the fleet of the folder RUN.
#
# Whoever starts a fleet starts this first and holds the other end. So a fleet goes when it is
# closed, and just as well when its owner panics, is killed or never got to the end of its setup.
# RUN/processes holds "PID START" of the fleet's namespace, RUN/cgroups one control group a line.
run=$1
cat > /dev/null
case $run in */run/?*) ;; *) echo "reap.sh: $run is no folder of a fleet" >&2; exit 1 ;; esac

alive() { # PID START: is it still the process that was noted, and not a zombie?
  stat=$(cat "/proc/$1/stat" 2> /dev/null) || return 1
  set -- "$2" ${stat##*) }
  [ "$2" != Z ] && [ "${21}" = "$1" ]
}
soon() { # COMMAND...: within ten seconds
  n=0
  until "$@"; do
    n=$((n + 1))
    [ $n -lt 500 ] || return 1
    sleep 0.02
  done
}
gone() { ! alive "$@"; }
no_group() { find "$1" -depth -type d -exec rmdir {} + 2> /dev/null; [ ! -d "$1" ]; }

status=0
if [ -f "$run/processes" ]; then
  while read -r pid start; do
    if alive "$pid" "$start"; then kill -KILL "$pid"; fi
    soon gone "$pid" "$start" || { echo "reap.sh: process $pid of $run does not end" >&2; status=1; }
  done < "$run/processes"
fi
if [ -f "$run/cgroups" ]; then
  while read -r group; do
    soon no_group "$group" || { echo "reap.sh: control group $group is still in use" >&2; status=1; }
  done < "$run/cgroups"
fi
rm -rf --one-file-system "$run" || status=1
exit $status
