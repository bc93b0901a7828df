#!/bin/bash
# call.sh ARG...: runs a program in the virtual machine whose network this runs in, see guest/exec.
# Ends with the program's code; 255: no connection, 254: no answer, as from a machine that went off.
exec 3<> /dev/tcp/127.0.0.1/2222 || exit 255
{
  printf '%s\0' "$@" | base64 -w 0
  echo
  base64 -w 0
  echo
} >&3
if ! read -r code out err <&3; then
  echo "call.sh: no answer" >&2
  exit 254
fi
head -c "$out" <&3
head -c "$err" <&3 >&2
exit "$code"
