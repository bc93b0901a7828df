# The systems of ../../nixos/toplevel.nix (here as plain.nix) for a virtual machine: with a kernel
# and an initrd that run, an init, and a boot loader script that knows hold points and boot counting.
# Takes the same arguments.
#
# `kernel` still only tells versions apart: the same kernel with other bytes at its end, the same
# initrd with another file /version in it, which a running machine shows in /run/initrd-version.
{ systems ? [ { } ], json ? null }:
let
  list = if json == null then systems else builtins.fromJSON json;
  plain = import ./plain.nix { systems = list; };
  make = name: attrs: script: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/bash";
    # Bash would become the last program, and Nix take the closing of its output for its end.
    args = [ "-euc" "${script}\n:" ];
    PATH = "/usr/bin:/bin";
    LC_ALL = "C.UTF-8";
  } // attrs);

  linux = version: make "linux-${version}" { inherit version; } ''
    mkdir $out
    { cat ${./vm/kernel}; echo "linux $version"; } > $out/bzImage
  '';
  initrd = version: make "initrd-linux-${version}" { inherit version; } ''
    mkdir $out
    cpio() { # NAME TEXT: a file in the format that initrds have, padded to four bytes
      printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X' 0 33188 0 0 1 0 ''${#2} 0 0 0 0 $((''${#1} + 1)) 0
      printf '%s\0' "$1"
      head -c $(((4 - (111 + ''${#1}) % 4) % 4)) /dev/zero
      printf '%s' "$2"
      head -c $(((4 - ''${#2} % 4) % 4)) /dev/zero
    }
    { cat ${./vm/initrd}; cpio version "$version"; cpio TRAILER!!! ""; } > $out/initrd
  '';

  machine = system: from:
    let
      kernel = system.kernel or "6.1";
      tooBig = builtins.elem "boot-full" (system.misbehave or [ ]); # plain's is, and nobody runs it
    in
    make from.name { plain = from; bootloader = "${./vm/install-bootloader.sh}"; } ''
      cp -a $plain $out
      chmod -R u+w $out
      { grep -rlF $plain $out || true; } | while read -r file; do sed -i "s#$plain#$out#g" "$file"; done
      ${if tooBig then "" else ''
        ln -sfn ${linux kernel}/bzImage $out/kernel
        ln -sfn ${initrd kernel}/initrd $out/initrd
      ''}
      printf '%s' "console=ttyS0 panic=1 net.ifnames=0 quiet cryptomgr.notests no_timer_check $(cat $plain/kernel-params)" > $out/kernel-params
      printf '#!/bin/sh\nexec /usr/local/lib/fleet/stage-2 %s\n' $out > $out/init
      mv $out/install-bootloader $out/.install-bootloader
      printf '#!/bin/sh\nexec /bin/bash %s %s "$@"\n' $bootloader $out/.install-bootloader > $out/install-bootloader
      chmod 755 $out/init $out/install-bootloader
    '';
in
builtins.genList (i: machine (builtins.elemAt list i) (builtins.elemAt plain i)) (builtins.length list)
