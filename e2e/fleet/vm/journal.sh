#!/bin/sh
# journal.sh DIR: shows the journal on the root disk of the machine in DIR/vm, which is off.
set -eu
cd "$1/vm"
rm -rf journal
mkdir journal
qemu-img convert -O raw root journal/root.raw
debugfs -R "rdump /var/log/journal journal" journal/root.raw 2> /dev/null
journalctl --no-pager -o short-precise --lines=2000 --directory=journal/journal
rm -rf journal
