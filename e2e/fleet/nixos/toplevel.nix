# NixOS-like systems without nixpkgs: what top-level.nix of NixOS puts into a system closure, from
# derivations whose builder is /bin/sh (hence `sandbox = false`). One system is 18 paths; another
# version of it replaces three: hello, etc and the system itself.
#
# `systems` is a list of attribute sets, see `system` below for what may stand in one; the value is
# the list of their derivations. By hand:
#
#   nix-build toplevel.nix --arg systems '[ { version = "2"; misbehave = [ "unit-fails" ]; } ]'
{ systems ? [ { } ], json ? null }:
let
  inherit (builtins) attrNames concatStringsSep elem elemAt filter fromJSON genList hasAttr length listToAttrs map stringLength substring toJSON;
  lines = f: list: concatStringsSep "" (map f list);
  optional = condition: value: if condition then value else { };
  startsWith = prefix: text: substring 0 (stringLength prefix) text == prefix;
  quote = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";

  # make NAME ATTRS SCRIPT: one derivation; ATTRS are variables of the script.
  make = name: attrs: script: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = "/usr/bin:/bin";
    LC_ALL = "C.UTF-8";
  } // attrs);

  # tree NAME FILES SCRIPT: a folder with FILES (name = text; what begins with #! is executable), to
  # which SCRIPT adds. @out@ in a text is the path itself.
  tree = name: files: script:
    let
      names = attrNames files;
      variable = i: "file${toString i}";
      numbers = genList (i: i) (length names);
      scripts = filter (n: startsWith "#!" files.${n}) names;
    in
    make name (listToAttrs (map (i: { name = variable i; value = files.${elemAt names i}; }) numbers)) ''
      mkdir -p $out ${lines (n: "\"$out/${dirOf n}\" ") names}
      ${lines (i: "printf '%s' \"$" + variable i + "\" > $out/" + quote (elemAt names i) + "\n") numbers}
      ${if scripts == [ ] then "" else "chmod 755 ${lines (n: "$out/${quote n} ") scripts}"}
      for f in $(grep -rl @out@ $out || true); do sed -i "s#@out@#$out#g" $f; done
      ${script}
    '';

  # ---- what no version changes
  tools = genList (i: tree "tool-${toString i}" { "bin/tool-${toString i}" = "#!/bin/sh\necho tool ${toString i}\n"; } "") 6;
  systemd = tree "systemd-252" { version = "252"; } "";
  firmware = tree "firmware" { "firmware/none" = ""; } "";
  switchToConfiguration = "${./switch-to-configuration.sh}";
  activate = "${./activate.sh}";
  installBootloader = "${./install-bootloader.sh}";

  # An agent for tests of the harness itself: it says that it runs, and waits.
  stub = tree "narwharf-stub" {
    "bin/narwharf" = ''
      #!/bin/sh
      echo "stub: $*"
      [ "$1 $2" = "agent run" ] || exit 0
      exec sleep infinity
    '';
  } "";

  linux = version: kilobytes: make "linux-${version}" { inherit version; } ''
    mkdir $out
    { echo "kernel $version"; head -c ${toString (kilobytes * 1024)} /dev/zero; } > $out/bzImage
  '';
  initrd = version: make "initrd-linux-${version}" { } ''
    mkdir $out
    { echo initrd; head -c 65536 /dev/zero; } > $out/initrd
  '';
  bytes = version: kilobytes: make "bulk-${version}" { } "head -c ${toString (kilobytes * 1024)} /dev/urandom > $out";
  modules = version: tree "linux-${version}-modules" { "lib/modules/${version}/modules.dep" = ""; } "";

  unit = { description, service, unit ? "", install ? "multi-user.target" }: {
    text = "[Unit]\nDescription=${description}\n${unit}\n[Service]\n${service}";
    inherit install;
  };

  system =
    { name ? "host"
    , version ? "1" # of the whole: /run/hello and nixos-version say it
    , kernel ? "6.1" # another one needs a reboot
    , kernelParams ? "loglevel=4"
    , agent ? "" # store path with bin/narwharf, "stub", or "" for a system without an agent
    , agentConfig ? "" # text of /etc/narwharf/agent.toml
    , agentService ? "" # lines added to the [Service] of narwharf.service
    , agentRestarts ? false # the unit does not say restartIfChanged=false: a mistake to survive
    , units ? { } # name of a service = text of its file; multi-user.target wants it
    , etc ? { } # more files
    , health ? { } # more files of etc/narwharf/health.d
    , inhibitors ? { } # switch-inhibitors: another value and only `boot` works
    , specialisations ? { } # name = what a system is made of
    , snippet ? "" # shell, added to the activation script
    , bulk ? 0 # KiB that do not compress, in a path of their own, others in each version
    , seconds ? 30 # how long "slow…" takes, and when "fails-later" fails
    , misbehave ? [ ]
    }:
    let
      # activation-fails   exit code 2
      # unit-fails         exit code 4: a new unit fails at once
      # fails-later        exit code 0, and a new unit fails after `seconds`
      # slow               a unit takes `seconds` to start
      # slow-activation    the activation script takes `seconds`
      # hang               the activation script never ends (at boot it does)
      # dies               switch-to-configuration is killed in the middle, once in a boot
      # logind-away        exit code 11: the activation script takes logind away for `seconds`
      # kill-agent         the activation script kills the agent
      # network-down, network-route, network-silent   see host/network
      # unhealthy          exit code 0, but hello answers 500 and its health check fails
      # boot-full          a kernel too big for /boot: exit code 1
      # boot-silent        the boot loader is not written, exit code 0 all the same
      # check-fails        the pre-switch check fails: exit code 1
      # init-interface     exit code 100
      known = [
        "activation-fails" "unit-fails" "fails-later" "slow" "slow-activation" "hang" "dies" "logind-away" "kill-agent" "network-down"
        "network-route" "network-silent" "unhealthy" "boot-full" "boot-silent" "check-fails" "init-interface"
      ];
      does = m: elem m misbehave;
      unknown = filter (m: !(elem m known)) misbehave;
      seconds' = toString seconds;
      hasAgent = agent != "";
      agentPath = if agent == "stub" then stub else builtins.storePath agent;

      hello = tree "hello-${version}" {
        "bin/hello" = ''
          #!/bin/sh
          echo '${if does "unhealthy" then "broken" else version}' > /run/hello
          exec sleep infinity
        '';
      } "";

      allUnits = {
        "network.service" = unit {
          description = "Network of this host";
          unit = "DefaultDependencies=no\nAfter=local-fs.target\nBefore=network.target\nWants=network.target";
          service = ''
            Type=oneshot
            RemainAfterExit=yes
            ExecStart=/usr/local/lib/fleet/network ${
              if does "network-down" then "down" else if does "network-route" then "route" else if does "network-silent" then "silent" else "up"}
          '';
        };
        "hello.service" = unit {
          description = "Hello";
          service = "ExecStart=${hello}/bin/hello\n";
        };
        "web@.service" = unit {
          description = "One answer";
          install = "";
          service = "ExecStart=-/etc/web/respond\nStandardInput=socket\n";
        };
        "web.socket" = {
          install = "sockets.target";
          text = "[Unit]\nDescription=HTTP on port 8000\n\n[Socket]\nListenStream=8000\nAccept=yes\n";
        };
      } // optional hasAgent {
        "narwharf.service" = unit {
          description = "Narwharf agent";
          unit = "After=network.service nix-daemon.socket\nX-StopOnRemoval=false\nStartLimitIntervalSec=0";
          service = ''
            ExecStart=${agentPath}/bin/narwharf agent run --config /etc/narwharf/agent.toml
            Environment=NIX_REMOTE=daemon
            Restart=always
            RestartSec=1
          '' + (if agentRestarts then "" else "X-RestartIfChanged=false\nX-StopIfChanged=false\n") + agentService;
        };
      } // optional (does "unit-fails") {
        "broken.service" = unit { description = "Fails"; service = "Type=oneshot\nExecStart=/bin/false\n"; };
      } // optional (does "fails-later") {
        "later.service" = unit { description = "Fails later"; service = "ExecStart=/bin/sh -c 'sleep ${seconds'}; exit 1'\n"; };
      } // optional (does "slow") {
        "slow.service" = unit { description = "Slow"; service = "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep ${seconds'}\n"; };
      } // builtins.mapAttrs (_: text: { inherit text; install = "multi-user.target"; }) units;

      wants = filter (n: allUnits.${n}.install != "") (attrNames allUnits);
      under = folder: files: listToAttrs (map (n: { name = "${folder}/${n}"; value = files.${n}; }) (attrNames files));

      etcTree = tree "etc" (
        under "etc/systemd/system" (builtins.mapAttrs (_: u: u.text) allUnits)
        // {
          "etc/nixos-version" = version;
          "etc/web/respond" = ''
            #!/bin/sh
            # Reads a request, says what /run/hello says.
            while IFS= read -r line && [ ''${#line} -gt 1 ]; do :; done
            hello=$(cat /run/hello 2>&1) status='200 OK'
            [ "$hello" != broken ] || status='500 Internal Server Error'
            printf 'HTTP/1.0 %s\r\nContent-Type: text/plain\r\n\r\n%s\n' "$status" "$hello"
          '';
          "etc/narwharf/health.d/hello" = ''
            #!/bin/sh
            # Well is who runs the hello of the current system.
            want=$(cat /run/current-system/nixos-version) have=$(cat /run/hello)
            [ "$have" = "$want" ] || { echo "hello says '$have', the system is '$want'"; exit 1; }
          '';
        }
        // under "etc/narwharf/health.d" health
        // optional (agentConfig != "") { "etc/narwharf/agent.toml" = agentConfig; }
        // under "etc" etc
      ) ''
        cd $out/etc/systemd/system
        ${lines (n: "mkdir -p ${allUnits.${n}.install}.wants; ln -s ../${n} ${allUnits.${n}.install}.wants/${n}\n") wants}
      '';

      path = make "system-path" { tools = tools ++ (if hasAgent then [ agentPath ] else [ ]); } ''
        mkdir -p $out/bin
        for tool in $tools; do ln -s $tool/bin/* $out/bin/; done
      '';

      activation = lines (s: s + "\n") (
        (if snippet == "" then [ ] else [ snippet ])
        ++ (if does "slow-activation" then [ "sleep ${seconds'}" ] else [ ])
        ++ (if does "hang" then [ "[ -z \"$NIXOS_ACTION\" ] || sleep infinity" ] else [ ])
        ++ (if does "kill-agent" then [ "[ -z \"$NIXOS_ACTION\" ] || systemctl kill --signal=KILL narwharf.service" ] else [ ])
        ++ (if does "logind-away" then [ ''
          [ -z "$NIXOS_ACTION" ] || {
            systemctl mask --runtime --quiet systemd-logind.service
            systemctl stop systemd-logind.service
            systemd-run --quiet --unit=hidden-logind --on-active=${seconds'} --timer-property=AccuracySec=100ms \
              sh -c 'systemctl unmask --runtime systemd-logind.service; systemctl start systemd-logind.service'
          }
        '' ] else [ ])
        ++ (if does "dies" then [ "[ -z \"$NIXOS_ACTION\" ] || [ -e /run/nixos/died ] || { touch /run/nixos/died; kill -KILL $SWITCH_PID; sleep 60; }" ] else [ ])
        ++ (if does "activation-fails" then [ "echo this fails >&2\nexit 1" ] else [ ]));

      kernelTree = linux kernel (if does "boot-full" then 65536 else 64);
    in
    if unknown != [ ] then throw "toplevel.nix: misbehave knows no ${toJSON unknown}, only ${toJSON known}"
    else
      tree "nixos-system-${name}-${version}" ({
        "nixos-version" = version;
        "system" = builtins.currentSystem;
        "init-interface-version" = if does "init-interface" then "systemd 3" else "systemd 2";
        "kernel-params" = kernelParams;
        "configuration-name" = "";
        "extra-dependencies" = "";
        "boot.json" = toJSON {
          "org.nixos.bootspec.v1" = {
            init = "@out@/init";
            initrd = "${initrd kernel}/initrd";
            kernel = "${kernelTree}/bzImage";
            kernelParams = [ kernelParams ];
            label = "NixOS ${version}";
            system = builtins.currentSystem;
            toplevel = "@out@";
          };
          "org.nixos.specialisation.v1" = { };
        };
        "switch-inhibitors" = toJSON inhibitors;
        "reboot-triggers" = toJSON ({ inherit kernel kernelParams; } // inhibitors);
        "init" = "#!/bin/sh\n# stage 2 is host/boot of the harness\nexit 1\n";
        "activate" = "#!/bin/sh\nexec /bin/bash ${activate} @out@\n";
        "dry-activate" = "#!/bin/sh\necho would link /etc to @out@/etc\n";
        "install-bootloader" =
          if does "boot-silent" then "#!/bin/sh\necho cannot write the boot entry >&2\n"
          else "#!/bin/sh\nexec /bin/bash ${installBootloader} \"$@\"\n";
        "bin/switch-to-configuration" = "#!/bin/sh\nexec /bin/bash ${switchToConfiguration} @out@ \"$@\"\n";
      }
      // optional (activation != "") { "activate-snippet" = "#!/bin/sh\n${activation}"; }
      // optional (does "check-fails") { "pre-switch-check" = "#!/bin/sh\necho not like this >&2\nexit 1\n"; }
      ) ''
        ln -s ${etcTree}/etc $out/etc
        ln -s ${path} $out/sw
        ln -s ${systemd} $out/systemd
        ln -s ${firmware}/firmware $out/firmware
        ln -s ${kernelTree}/bzImage $out/kernel
        ln -s ${initrd kernel}/initrd $out/initrd
        ln -s ${modules kernel} $out/kernel-modules
        ${lines (n: "mkdir -p $out/specialisation; ln -s ${system specialisations.${n}} $out/specialisation/${n}\n") (attrNames specialisations)}
        ${if bulk == 0 then "" else "ln -s ${bytes version bulk} $out/bulk"}
      '';
in
map system (if json == null then systems else fromJSON json)
