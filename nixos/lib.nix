# What a flake of hosts needs: inputs.narwharf.lib.
{ lib, narwharf }:

rec {
  # agentOf is the agent's configuration of a host.
  agentOf = name: nixos:
    let agent = nixos.config.services.narwharf-agent or null; in
    if agent == null || !agent.enable then
      throw "narwharf.lib.release: ${name} is without the agent: import nixosModules.agent and set services.narwharf-agent.enable. A host that gets such a system follows no more."
    else agent;

  # release is a folder with a link to the system of each target, which narwharf promote takes.
  # A configuration is named by its target; several may share one if their systems are the same.
  #
  #   release pkgs self.nixosConfigurations
  #   release pkgs { inherit (self.nixosConfigurations) web-1 web-2; }
  release = pkgs: configurations:
    let
      followers = lib.mapAttrs
        (name: nixos:
          let agent = agentOf name nixos; in
          if agent.settings.target == null then
            throw "narwharf.lib.release: ${name} has no target: set services.narwharf-agent.settings.target, or networking.hostName"
          else { inherit (agent.settings) channel target; path = nixos.config.system.build.toplevel; })
        configurations;
      channels = lib.unique (lib.mapAttrsToList (_: f: f.channel) followers);
      groups = lib.groupBy (name: followers.${name}.target) (lib.attrNames followers);
      pathOf = target: names:
        let
          first = lib.head names;
          other = lib.findFirst (name: followers.${name}.path.outPath != followers.${first}.path.outPath) null names;
        in
        if names == [ first ] && first != target then
          throw "narwharf.lib.release: ${first} takes the entry ${target} of a release, not ${first}: name it ${target}, or set services.narwharf-agent.settings.target = \"${first}\""
        else if other != null then
          throw "narwharf.lib.release: ${first} and ${other} both take the entry ${target}, and are different systems: give each a target, or make them the same (networking.hostName = \"\" takes the name from the network)"
        else followers.${first}.path;
    in
    if configurations == { } then throw "narwharf.lib.release: there is no configuration"
    else if lib.length channels > 1 then
      throw "narwharf.lib.release: these hosts follow more than one channel (${lib.concatStringsSep ", " channels}): releases makes a release of each"
    else (pkgs.linkFarm "narwharf-release-${lib.head channels}" (lib.mapAttrs pathOf groups)).overrideAttrs {
      passthru = { channel = lib.head channels; targets = lib.attrNames groups; };
    };

  # releases are a release for each channel that hosts follow; those without the agent are left out.
  releases = pkgs: configurations:
    let
      followers = lib.filterAttrs (_: nixos: nixos.config.services.narwharf-agent.enable or false) configurations;
      channels = lib.groupBy (name: followers.${name}.config.services.narwharf-agent.settings.channel) (lib.attrNames followers);
    in
    lib.mapAttrs (_: names: release pkgs (lib.getAttrs names followers)) channels;

  # deployApp is an app for `nix run .#deploy`: it builds, signs, uploads, promotes and waits.
  # What else narwharf deploy takes may follow: nix run .#deploy -- --dry-run
  deployApp = { pkgs, channel, installable, server, key ? null, contentKey ? null, flags ? [ ] }:
    let
      arguments = [ channel installable "--server" server ]
        ++ lib.optionals (key != null) [ "--key" key ]
        ++ lib.optionals (contentKey != null) [ "--content-key-file" contentKey ]
        ++ flags;
      secret = lib.filter (file: file != null && (builtins.isPath file || lib.hasPrefix builtins.storeDir file)) [ key contentKey ];
      script = pkgs.writeShellScript "narwharf-deploy-${channel}" ''
        exec ${lib.getExe (narwharf pkgs)} deploy ${lib.escapeShellArgs arguments} "$@"
      '';
    in
    if secret != [ ] then throw "narwharf.lib.deployApp: a secret key must not be in the Nix store, for all to read: name its file as a text, \"/home/me/.config/narwharf/me.sec\""
    else {
      type = "app";
      program = "${script}";
      meta.description = "Deploy ${installable} to the channel ${channel}";
    };
}
