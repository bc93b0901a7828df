# Evaluates the modules with a nixpkgs: make nixos-eval NIXPKGS=DIR. It builds nothing.
{ nixpkgs, system ? "x86_64-linux" }:

let
  lib = import (nixpkgs + "/lib");
  # Some copies of nixpkgs come without the largest generated files. What needs them here is
  # shellcheck alone, which evaluates to nothing that we look at.
  complete = builtins.pathExists (nixpkgs + "/pkgs/development/haskell-modules/hackage-packages.nix");
  # Past default.nix, which refuses a Nix older than 2.18; the rest does without.
  # What replaces a package is an overlay: `pkgs // { … }` is lost where NixOS adds its own overlays.
  pkgsWith = overlays: system: import (nixpkgs + "/pkgs/top-level") {
    localSystem = { inherit system; };
    config = { };
    overlays = overlays
      ++ lib.optional (!complete) (_: prev: { shellcheck-minimal = prev.hello // { compiler.bootstrapAvailable = false; }; });
  };
  pkgsFor = pkgsWith [ ];
  pkgs = pkgsWith [ (_: _: { inherit narwharf; }) ] system;
  # A package whose path does not change with the program.
  narwharf = {
    type = "derivation";
    name = "narwharf";
    outputName = "out";
    outPath = "/nix/store/00000000000000000000000000000000-narwharf";
    meta.mainProgram = "narwharf";
  };

  nixos = module: import (nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit system pkgs;
    modules = [
      ../modules
      {
        boot.loader.grub.enable = lib.mkDefault false;
        fileSystems."/" = lib.mkOverride 1400 { device = "none"; fsType = "tmpfs"; };
        networking.hostName = lib.mkOverride 999 "web-1";
        system.stateVersion = lib.mkDefault lib.trivial.release;
      }
      module
    ];
  };

  ours = name: lib.hasPrefix "narwharf" name;
  scriptsIn = value: if lib.isList value then lib.concatMap scriptsIn value else lib.optional (value ? text) { inherit (value) name text; };

  resultOf = { config, ... }:
    let
      unit = kind: lib.mapAttrs' (name: _: lib.nameValuePair "${name}.${kind}" config.systemd.units."${name}.${kind}".text)
        (lib.filterAttrs (name: _: ours name) config.systemd."${kind}s");
      scripts = lib.concatMap (s: scriptsIn (s.serviceConfig.ExecStartPre or [ ]) ++ scriptsIn (s.serviceConfig.ExecStartPost or [ ]))
        (lib.attrValues (lib.filterAttrs (name: _: ours name) config.systemd.services));
      etc = lib.filterAttrs (name: _: lib.hasPrefix "narwharf/" name) config.environment.etc;
      virtualHosts = lib.optionalAttrs config.services.nginx.enable config.services.nginx.virtualHosts;
    in
    {
      refuses = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
      warns = lib.filter (lib.hasInfix "narwharf") config.warnings;
      units = lib.mapAttrs (_: builtins.unsafeDiscardStringContext) (unit "service" // unit "socket");
      scripts = lib.listToAttrs (map (s: lib.nameValuePair s.name (builtins.unsafeDiscardStringContext s.text)) scripts);
      settings = lib.mapAttrs (_: e: let v = (e.source.toml or e.source).value; in if builtins.isString v then builtins.fromJSON v else v)
        (lib.filterAttrs (name: _: lib.hasSuffix ".toml" name) etc);
      files = lib.attrNames etc;
      ports = config.networking.firewall.allowedTCPPorts;
      allowed = config.nix.settings.extra-allowed-users or [ ];
      sites = lib.attrNames virtualHosts;
    };

  configurations = import ./configurations.nix { inherit lib; };
  evaluating = lib.filterAttrs (_: c: !(c ? throws)) configurations;
in
# Each attribute is asked for alone, and keeps nothing but texts: a whole system is some 200 MB while it is evaluated.
{
  # What each configuration is to be, and what those have to say that throw.
  table = lib.mapAttrs (_: c: removeAttrs c [ "module" ]) configurations;
  results = lib.mapAttrs (_: c: resultOf (nixos c.module)) evaluating;
  throwing = lib.mapAttrs (_: c: resultOf (nixos c.module)) (lib.filterAttrs (_: c: c ? throws) configurations);
  # A whole system of each that must evaluate.
  systems = lib.mapAttrs (_: c: builtins.unsafeDiscardStringContext (nixos c.module).config.system.build.toplevel.drvPath)
    (lib.filterAttrs (_: c: !(c ? refuses)) evaluating);
  # Whether a host's agent runs in a VM that people try its system in: it would act as the host.
  vm = (nixos configurations.agent.module).config.virtualisation.vmVariant.services.narwharf-agent.enable;
  # A disk image with the agent inside.
  image = builtins.unsafeDiscardStringContext (nixos ../../docs/examples/image.nix).config.system.build.images.raw-efi.drvPath;
  flakes = import ./flakes.nix { inherit nixpkgs lib pkgsFor; };
  options = lib.filter (o: lib.hasPrefix "services.narwharf" o.name && o.visible && !o.internal)
    (lib.optionAttrSetToDocList (lib.filterAttrs (name: _: name == "services") (nixos { }).options));
}
