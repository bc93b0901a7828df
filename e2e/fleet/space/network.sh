#!/bin/sh
# network.sh GATEWAY NAME=ADDRESS...
#
# Inside the fleet's namespace: a network namespace `switch` with the bridge br0, which has the
# address GATEWAY, and one for each NAME, whose eth0 hangs on a port of the bridge with that name.
# Only the bare link is made here for hosts; servers get their address too. No pair of interfaces
# ever has an end outside these namespaces, so nothing of it is seen on the machine, and nothing
# in here has a way out.
#
#   NAME=ADDRESS    configured here
#   NAME            eth0 stays down: the host's own system configures it
#
# Where the switch is there already, machines are added to it.
set -eu
gateway=$1
shift
if [ ! -e /run/netns/switch ]; then
  ip netns add switch
  ip -n switch link set lo up
  ip -n switch link add br0 type bridge
  ip -n switch addr add "$gateway/24" dev br0
  ip -n switch link set br0 up
fi
for machine; do
  name=${machine%%=*}
  ip netns add "$name"
  ip -n switch link add "$name" type veth peer name eth0 netns "$name"
  ip -n switch link set "$name" master br0 up
  ip -n "$name" link set lo up
  case $machine in
    *=*)
      ip -n "$name" addr add "${machine#*=}/24" dev eth0
      ip -n "$name" link set eth0 up
      ip -n "$name" route add default via "$gateway"
      ;;
  esac
done
