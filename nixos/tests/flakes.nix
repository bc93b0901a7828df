# What the flake and the templates give, with a nixpkgs that is a folder: without locks, fetches and builds.
{ nixpkgs, lib, pkgsFor }:

let
  # fix calls a flake with itself, as Nix does.
  fix = folder: inputs:
    let
      file = import (folder + "/flake.nix");
      self = outputs // { outPath = toString folder; shortRev = "0000000"; };
      outputs = file.outputs (inputs // { inherit self; });
    in
    { inherit file outputs; };

  legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ] pkgsFor;
  input = {
    inherit legacyPackages;
    lib = lib // {
      nixosSystem = args: import (nixpkgs + "/nixos/lib/eval-config.nix") (args // { modules = args.modules ++ [{ nixpkgs.pkgs = legacyPackages.x86_64-linux; }]; });
    };
  };
  own = (fix ../.. { nixpkgs = input; }).outputs;
  template = name: (fix (../templates + "/${name}") { nixpkgs = input; narwharf = own; }).outputs;
  path = drv: builtins.unsafeDiscardStringContext drv.drvPath;
  refusal = value: builtins.tryEval (builtins.deepSeq value true);

  hosts = (template "fleet").nixosConfigurations;
  release = configurations: path (own.lib.release legacyPackages.x86_64-linux configurations);
in
{
  packages = lib.mapAttrs (_: p: path p.default) own.packages;
  overlay = path (pkgsFor "x86_64-linux" // own.overlays.default (pkgsFor "x86_64-linux") { }).narwharf;
  checks = lib.mapAttrs (_: path) own.checks.x86_64-linux;
  apps = own.apps.x86_64-linux.default.program;
  cache = path (template "cache").nixosConfigurations.cache.config.system.build.toplevel;
  fleet = {
    hosts = lib.mapAttrs (_: h: path h.config.system.build.toplevel) hosts;
    release = path (template "fleet").checks.x86_64-linux.release;
    deploy = builtins.unsafeDiscardStringContext (template "fleet").apps.x86_64-linux.deploy.program;
  };
  release = {
    shared = release {
      a = hosts.web-1.extendModules { modules = [{ services.narwharf-agent.settings.target = "web"; }]; };
      b = hosts.web-1.extendModules { modules = [{ services.narwharf-agent.settings.target = "web"; }]; };
    };
    all = lib.mapAttrs (_: path) (own.lib.releases legacyPackages.x86_64-linux hosts);
    # Each of these is refused.
    refused = lib.mapAttrs (_: c: !(refusal (release c)).success) {
      without-agent = { inherit (hosts) cache web-1; };
      another-target = { web-7 = hosts.web-1; };
      differs = {
        web-1 = hosts.web-1;
        other = hosts.web-2.extendModules { modules = [{ services.narwharf-agent.settings.target = "web-1"; }]; };
      };
      two-channels = {
        inherit (hosts) web-1;
        web-2 = hosts.web-2.extendModules { modules = [{ services.narwharf-agent.settings.channel = lib.mkForce "db"; }]; };
      };
      nothing = { };
    };
  };
  keyInStore = !(refusal (own.lib.deployApp { pkgs = legacyPackages.x86_64-linux; channel = "web"; installable = ".#r"; server = "https://c"; key = ./keys.nix; })).success;
}
