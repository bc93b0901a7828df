# A machine without the agent becomes a host by its user-data.
{ machines, ... }: {
  name = "narwharf-bootstrap";

  nodes = {
    cache = machines.server;
    # What it becomes; it is not started.
    web1 = machines.host;
    new = {
      networking.hostName = "new";
      system.switch.enable = true;
      nix.settings.substituters = [ ];
    };
    ci = args@{ nodes, pkgs, ... }: machines.ci [ nodes.web1.system.build.toplevel nodes.web1.services.narwharf-agent.package ] args;
  };

  testScript = { nodes, ... }:
    let inherit (nodes) web1; in
    builtins.replaceStrings [ "start_all()" ] [ "cache.start(); ci.start(); new.start()" ] machines.script + ''
      upload("${web1.system.build.toplevel}")
      upload("${web1.services.narwharf-agent.package}")
      ci.succeed(f"narwharf promote web web1=${web1.system.build.toplevel} {promoter}")
      join = cache.succeed("narwharf token new --join web --host web1").strip().splitlines()[-1]
      hand(ci, "/root/join", join)
      script = ci.succeed(
          "narwharf bootstrap web --server http://cache:8080 --origin cache/web --key '${(import ./keys.nix).alice.public}'"
          " --content-key '${(import ./keys.nix).cache.public}' --agent ${web1.services.narwharf-agent.package}"
          " --join-token-file /root/join --host web1 --no-reboot"
      )
      new.wait_for_unit("multi-user.target")
      hand(new, "/root/boot.sh", script.replace("'", "'\\'''"))
      new.succeed("sh /root/boot.sh")
      new.succeed("test $(readlink -f /run/current-system) = ${web1.system.build.toplevel}")
    '';
}
