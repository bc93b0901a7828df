# What nobody needs goes, what a channel names stays.
{ machines, pkgs }: {
  name = "narwharf-retention";

  nodes = {
    cache = { lib, ... }: {
      imports = [ machines.server ];
      services.narwharf.settings.retention = { grace = "1s"; lease = "1s"; };
    };
    ci = args@{ pkgs, ... }: machines.ci [ pkgs.hello pkgs.figlet ] args;
  };

  testScript =
    machines.script + ''
      upload("${pkgs.hello}")
      upload("${pkgs.figlet}")
      ci.succeed(f"narwharf promote web ${pkgs.hello} --kind path {promoter}")
      ci.sleep(3)
      cache.succeed("narwharf gc")
      ci.succeed("curl -fsS http://cache:8080/$(basename ${pkgs.hello} | cut -c1-32).narinfo")
      ci.fail("curl -fsS http://cache:8080/$(basename ${pkgs.figlet} | cut -c1-32).narinfo")
      cache.succeed("narwharf why ${pkgs.hello} | grep -w web")
      cache.succeed("narwharf fsck")
    '';
}
