# Upload, promote, revert, rollback: a server, two hosts, and CI.
{ machines, ... }: {
  name = "narwharf-deploy";

  nodes = {
    cache = machines.server;
    web1 = machines.host;
    web2 = machines.host;
    ci = args@{ nodes, pkgs, ... }: machines.ci [ nodes.web1.system.build.toplevel nodes.web2.system.build.toplevel ] args;
  };

  testScript = { nodes, ... }:
    let
      system = name: nodes.${name}.system.build.toplevel;
    in
    machines.script + ''
      hosts = {"web1": (web1, "${system "web1"}"), "web2": (web2, "${system "web2"}")}
      for host, (machine, system) in hosts.items():
          hand(machine, "/var/lib/secrets/token", token("hosts"))
          upload(system)

      def targets(which):
          return " ".join(f"{host}=$(readlink -f {system}/specialisation/{which})" for host, (_, system) in hosts.items())

      def runs(machine, text):
          machine.succeed(f"grep -qx {text} /etc/release")

      with subtest("a release is taken by every host"):
          ci.succeed(f"narwharf promote web {targets('next')} --wait --require-hosts 2 {promoter}")
          for machine, _ in hosts.values():
              runs(machine, "next")
              machine.succeed("narwharf agent status | grep -w ok")

      with subtest("one that is ill is gone back from"):
          ci.fail(f"narwharf promote web {targets('ill')} --wait {promoter}")
          for machine, _ in hosts.values():
              machine.wait_until_succeeds("narwharf agent status | grep -w reverted")
              runs(machine, "next")

      with subtest("rollback leads to the one that was well"):
          ci.succeed(f"narwharf rollback web --wait --require-hosts 2 {promoter}")
          for machine, _ in hosts.values():
              machine.succeed("narwharf agent status | grep -w ok")
              runs(machine, "next")

      with subtest("a switch leaves the server's socket open"):
          cache.succeed("systemctl restart narwharf & curl -fsS --retry 3 http://127.0.0.1:8080/nix-cache-info && wait")
    '';
}
